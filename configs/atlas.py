"""Puts every scheme to every question, and draws the atlas of the answers.

    python launch.py --config=configs/atlas.py:small --workdir=runs/answers

Presets, after the colon:

    tiny   four schemes, one seed, a minute: checks that everything runs, shows nothing
    small  every scheme of the registry, three seeds, on two CPU cores
    paper  the same with the models of ``configs/extrapolation.py:paper``, for a GPU or TPU

Each scheme is trained twice: on text (``studies.language``), and on all tasks together
(``studies.tasks``). Three tasks are learned alone besides (``studies.tasks_copy``, ...), as a
control that together they rank the schemes alike. Any field is overridden on the command line:
``--config.studies.tasks.train.steps=500``. ``--config.seeds=1`` is for all studies, and so is
``--config.sweep.learning_rate=1e-3,3e-3``, rates of which each scheme gets the one at which it
learns best; ``--config.schemes=rope,alibi`` is for all but the controls. ``configs/claims.py``
reads the same studies: give it the same workdir.
"""

from ml_collections import ConfigDict

from configs import extrapolation, tasks
from posenc_jax import REGISTRY
from posenc_jax.registry import PATTERNS

PRESETS = ("tiny", "small", "paper")
# Each of another kind: everything by place, by what was told, and by what came last.
CONTROLS = ("copy", "recall", "flip_flop")
# Schemes of every family, which the controls compare.
CONTROLLED = "nope,sinusoidal,rope,alibi,t5,transformer_xl,fox,cope"


def get_config(preset: str = "small") -> ConfigDict:
    """Returns the config of a preset."""
    if preset not in PRESETS:
        raise ValueError(f"unknown preset {preset!r}; valid: {', '.join(PRESETS)}")
    config = ConfigDict({"experiment": "atlas"})
    config.seeds = 1 if preset == "tiny" else 3
    config.schemes = "nope,rope,yarn,alibi" if preset == "tiny" else ",".join(REGISTRY)
    config.sweep = ConfigDict({"learning_rate": ()})
    config.studies = studies(preset, config)
    return config


def studies(preset: str, shared: ConfigDict) -> ConfigDict:
    """Returns the studies of the atlas, which have ``seeds`` and ``schemes`` of ``shared``."""
    # The tasks have no model for an accelerator: they ask little of one.
    of_tasks = "small" if preset == "paper" else preset
    found = {"language": extrapolation.get_config(preset), "tasks": tasks.get_config(of_tasks)}
    found |= {f"tasks_{task}": tasks.get_config(of_tasks) for task in CONTROLS}
    found["language"].experiment = "language"
    for name, study in found.items():
        study.seeds = shared.get_ref("seeds")
        study.sweep.learning_rate = shared.sweep.get_ref("learning_rate")
        encodings = study.encodings if name == "language" else tasks.encodings_of(study)
        for pattern in PATTERNS:
            if "interval" in encodings[pattern]:
                encodings[pattern].interval = 2  # to fit two layers, or any even number
        if preset != "tiny":
            study.together = 3
            globals()["_language" if name == "language" else "_tasks"](study)
    for name in ("language", "tasks"):
        found[name].schemes = shared.get_ref("schemes")
    for task in CONTROLS:
        control = found[f"tasks_{task}"]
        control.task.tasks = task
        if preset == "tiny":
            control.schemes = shared.get_ref("schemes")
        else:
            control.schemes = CONTROLLED
    return ConfigDict(found)


def _language(study):
    study.train.update(steps=350, optimizer="muon", learning_rate=6e-3)
    # The windowed baseline, which decides what is flat and what gains, gives each token just as
    # much context as in training.
    study.eval.update(multiples=(1, 2, 4, 8, 16), documents=16, window_stride=1)


def _tasks(study):
    study.train.steps = 900
    study.eval.update(multiples=(1, 2, 4), depths=())
