"""Lists every experiment by name, and makes the one that a config is of."""

import importlib
from pathlib import Path

from ml_collections import ConfigDict
from rich.console import Console

# "module:class" by what a config has as ``experiment``; it is imported when it is asked for.
EXPERIMENTS = {
    "extrapolation": "experiments.compare:Comparison",
    "images": "experiments.multimodal.images:Images",
    "story": "experiments.multimodal.story:Story",
    "pointing": "experiments.multimodal.pointing:Pointing",
    "video": "experiments.multimodal.video:Videos",
    "tasks": "experiments.tasks.experiment:Questions",
    "longrope": "experiments.longrope.experiment:LongRoPESearch",
    "extension": "experiments.extension:Extension",
    "language": "experiments.atlas:Language",
    "atlas": "experiments.atlas:Atlas",
    "claims": "experiments.claims:Claims",
}


def make_experiment(config: ConfigDict, workdir: Path, console: Console):
    """Returns the experiment of ``config``, which has checked it and has run nothing.

    Raises:
      ValueError: the config names no experiment, or says what cannot work.
    """
    if config.experiment not in EXPERIMENTS:
        raise ValueError(
            f"config.experiment={config.experiment!r} must be one of {', '.join(EXPERIMENTS)}"
        )
    module, attribute = EXPERIMENTS[config.experiment].split(":")
    return getattr(importlib.import_module(module), attribute)(config, workdir, console)
