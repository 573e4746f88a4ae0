"""Asks questions whose answers depend on the order of tokens, in rows past the trained length.

    python launch.py --config=configs/tasks.py:small --workdir=runs/tasks

Presets, after the colon:

    tiny   one seed, seconds: checks that everything runs, shows nothing
    small  eight schemes, three seeds, on a laptop CPU

One model learns all tasks together. ``--config.task.tasks=passkey,copy`` trains on fewer, and
``--config.schemes=rope,alibi`` under fewer schemes; every scheme of the registry is a variant.
Schemes that extend a trained RoPE are evaluated on its checkpoint.
"""

from ml_collections import ConfigDict

from experiments.config import PRESETS, start, variant
from experiments.tasks.experiment import Setting, Trials
from posenc_jax import REGISTRY
from posenc_jax.registry import PATTERNS

__all__ = ["PRESETS", "get_config"]

SMALL = "nope,sinusoidal,learned,rope,dynamic_yarn,alibi,t5,transformer_xl,fox"
# Those that follow the length of each row by themselves.
EXTENSIONS = ("dynamic_pi", "dynamic_ntk", "dynamic_yarn")


def get_config(preset: str = "small") -> ConfigDict:
    """Returns the config of a preset."""
    config = start("tasks", preset, setting=Setting, trials=Trials)
    names = [name for name in REGISTRY if name not in PATTERNS]
    config.variants = ConfigDict({name: variant(name) for name in names})
    for name in EXTENSIONS:
        config.variants[name].of = "rope"
    # Learned tables end at the trained length: what lies past it reads the last row.
    for name in ("learned", "learned_2d"):
        config.variants[name].encoding.out_of_range = "clamp"
    config.schemes = SMALL
    config.together = 1  # seeds of a scheme that are trained as one program
    globals()[f"_{preset}"](config)
    return config


def _tiny(config):
    config.schemes = "rope,dynamic_ntk,alibi"
    config.seeds = 1
    config.model.update(model_dim=16, num_layers=1, num_heads=2)
    config.task.length = 32
    config.train.update(batch_size=8, steps=4, warmup_steps=2)
    config.eval.update(multiples=(1, 2), depths=(0.0, 1.0), rows=8, batch=8)


def _small(config):
    config.model.update(model_dim=128, num_layers=2, num_heads=4)
    config.train.update(batch_size=64, steps=2000, learning_rate=1e-3, warmup_steps=100)
