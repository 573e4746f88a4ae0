"""Asks questions whose answers depend on the order of tokens, in rows past the trained length.

    python launch.py --config=configs/tasks.py:small --workdir=runs/tasks

Presets, after the colon:

    tiny   one seed, seconds: checks that everything runs, shows nothing
    small  nine schemes, three seeds, on a laptop CPU

One model learns all tasks together. ``--config.task.tasks=passkey,copy`` trains on fewer, and
``--config.schemes=rope,alibi`` under fewer schemes; every scheme of the registry is a variant.
Schemes that extend a trained RoPE are evaluated on its checkpoint.
"""

from ml_collections import ConfigDict

from configs.extrapolation import DYNAMIC_NTK, ON_ROPE, follow_length, short_t5, short_yarn
from experiments.config import encoding, start
from experiments.settings import one_of
from experiments.studies.tasks.study import Setting, Trials
from posenc_jax import REGISTRY

SMALL = "nope,sinusoidal,learned,rope,dynamic_yarn,alibi,t5,transformer_xl,fox"


def get_config(preset: str = "small") -> ConfigDict:
    """Returns the config of a preset."""
    config = study("tasks", SMALL, setting=Setting, trials=Trials)
    PRESETS[one_of("preset", preset, PRESETS)](config)
    return config


def study(experiment: str, schemes: str, *, setting: type, trials: type) -> ConfigDict:
    """Returns the config of a study of rows of tokens, as ``start`` does.

    Every scheme is a variant, with keywords that follow ``config.task.length``.
    """
    config = start(experiment, setting=setting, trials=trials)
    config.schemes = schemes
    config.sweep = ConfigDict({"learning_rate": ()})  # as in ``configs/extrapolation.py``
    # "ratio" in an extension means the length of the evaluated rows over the trained length.
    config.variants = ConfigDict(
        {name: {"encoding": encoding(name, **ON_ROPE.get(name, {}))} for name in REGISTRY}
    )
    for name in ON_ROPE:
        config.variants[name].of = "rope"
    encodings, length = encodings_of(config), config.task.get_ref("length")
    encodings["dynamic_ntk"].factor = DYNAMIC_NTK
    follow_length(encodings, length)
    short_t5(encodings["t5"], length, config.model, num_buckets=16)
    return config


def encodings_of(config: ConfigDict) -> dict[str, ConfigDict]:
    """Returns the keywords of every variant's encoding by the variant's name."""
    return {name: variant.encoding for name, variant in config.variants.items()}


def _tiny(config):
    config.schemes = "rope,dynamic_ntk,alibi"
    config.seeds = 1
    config.model.update(model_dim=16, num_layers=1, num_heads=2)
    config.task.length = 32
    config.train.update(batch_size=8, steps=4, warmup_steps=2)
    config.eval.update(multiples=(1, 2), depths=(0.0, 1.0), rows=8, batch=8)


def _small(config):
    config.task.length = 32
    config.model.update(model_dim=64, num_layers=2, num_heads=4)
    # After the same number of AdamW steps the model can hardly recall or copy anything.
    config.train.update(
        batch_size=64, steps=1500, optimizer="muon", learning_rate=4e-3, warmup_steps=100
    )
    short_yarn(encodings_of(config))


PRESETS = {"tiny": _tiny, "small": _small}
