"""Lists every experiment by name, and makes the one that a config names."""

import importlib
from pathlib import Path

from ml_collections import ConfigDict
from rich.console import Console

# "module:class" by the ``experiment`` of a config. A module is imported when it is needed.
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
    """Returns the experiment of ``config``, which is checked; nothing is run.

    Raises:
      ValueError: the config names no experiment, or has values that cannot work.
    """
    if config.experiment not in EXPERIMENTS:
        raise ValueError(
            f"config.experiment={config.experiment!r} must be one of {', '.join(EXPERIMENTS)}"
        )
    module, attribute = EXPERIMENTS[config.experiment].split(":")
    return getattr(importlib.import_module(module), attribute)(config, workdir, console)
