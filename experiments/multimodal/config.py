"""What the configs of all multimodal experiments begin with."""

from ml_collections import ConfigDict

from experiments.config import defaults, own_defaults
from experiments.train import Recipe
from posenc_jax import Transformer

PRESETS = ("tiny", "small")


def start(experiment: str, preset: str, setting: type, trials: type) -> ConfigDict:
    """Everything but ``schemes``, ``variants`` and what the preset changes.

    Args:
      experiment: its name in ``launch.py``.
      preset: one of ``PRESETS``.
      setting, trials: dataclasses, whose fields become ``task`` and ``eval``.
    """
    if preset not in PRESETS:
        raise ValueError(f"unknown preset {preset!r}; valid: {', '.join(PRESETS)}")
    config = ConfigDict()
    config.experiment = experiment
    config.seeds = 3
    config.mesh = (-1, 1, 1)  # data, model, context; -1 takes the devices that are left
    config.model = defaults(Transformer.__init__, leave_out=("vocab_size", "causal", "rngs"))
    config.task = defaults(setting)
    config.train = defaults(Recipe, leave_out=("length",))
    config.eval = defaults(trials)
    return config


def variant(name: str, **own) -> ConfigDict:
    """A variant: the scheme ``name`` with its own keywords in full."""
    config = ConfigDict({"encoding": {"name": name} | own_defaults(name)})
    config.encoding.update(own)
    return config
