"""Evaluates every scheme on text and on tasks, and draws the atlas of the results.

    python launch.py --config=configs/atlas.py:small --workdir=runs/answers

Presets, after the colon:

    tiny   four schemes, one seed, a minute: checks that everything runs, shows nothing
    small  every scheme of the registry, three seeds, in three to four hours on two CPU cores
    paper  the same with the models of ``configs/extrapolation.py:paper``, for a GPU or TPU

Each scheme is trained twice: on text (``studies.language``), and on all tasks together
(``studies.tasks``). As a control, some schemes also learn three tasks alone
(``studies.tasks_copy``, ...): do they rank as they do when all tasks are learned together? Any
field can be overridden on the command line: ``--config.studies.tasks.train.steps=500``. Two fields
apply to all studies: ``--config.seeds=1``, and ``--config.sweep.learning_rate=1e-3,3e-3``, from
which each scheme gets its best rate. ``--config.schemes=rope,alibi`` applies to all but the
controls. ``configs/claims.py`` reads the same studies: give it the same workdir.
"""

from ml_collections import ConfigDict

from configs import extrapolation, tasks
from experiments.settings import one_of
from posenc_jax import REGISTRY
from posenc_jax.registry import PATTERNS

PRESETS = ("tiny", "small", "paper")
# Three kinds of task: find a token by its place, by the key told with it, or the last one written.
CONTROLS = ("copy", "recall", "flip_flop")
# Schemes of every family, which the controls compare.
CONTROLLED = "nope,sinusoidal,rope,alibi,t5,transformer_xl,fox,cope"


def get_config(preset: str = "small") -> ConfigDict:
    """Returns the config of a preset."""
    one_of("preset", preset, PRESETS)
    config = ConfigDict({"experiment": "atlas"})
    config.seeds = 1 if preset == "tiny" else 3
    config.schemes = "nope,rope,yarn,alibi" if preset == "tiny" else ",".join(REGISTRY)
    config.sweep = ConfigDict({"learning_rate": ()})
    config.studies = studies(preset, config)
    return config


def studies(preset: str, shared: ConfigDict) -> ConfigDict:
    """Returns the studies of the atlas; seeds, schemes and learning rates follow ``shared``."""
    # The tasks have no preset for an accelerator, because their models are small.
    of_tasks = "small" if preset == "paper" else preset
    made = {"language": extrapolation.get_config(preset), "tasks": tasks.get_config(of_tasks)}
    made |= {f"tasks_{task}": tasks.get_config(of_tasks) for task in CONTROLS}
    for name, study in made.items():
        study.seeds = shared.get_ref("seeds")
        study.sweep.learning_rate = shared.sweep.get_ref("learning_rate")
        encodings = study.encodings if name == "language" else tasks.encodings_of(study)
        for pattern in PATTERNS:
            if "interval" in encodings[pattern]:
                encodings[pattern].interval = 2  # fits two layers, or any even number
        if preset != "tiny":
            (_language if name == "language" else _tasks)(study)
    for name in ("language", "tasks"):
        made[name].schemes = shared.get_ref("schemes")
    for task in CONTROLS:
        control = made[f"tasks_{task}"]
        control.task.tasks = task
        control.schemes = shared.get_ref("schemes") if preset == "tiny" else CONTROLLED
    return ConfigDict(made)


def _language(study):
    study.train.update(steps=350, optimizer="muon", learning_rate=6e-3)
    # The windowed baseline, which decides what is flat and what gains, gives each token just as
    # much context as in training.
    study.eval.update(multiples=(1, 2, 4, 8, 16), documents=96, window_stride=1)


def _tasks(study):
    study.train.steps = 900
    study.eval.update(multiples=(1, 2, 4), depths=())
