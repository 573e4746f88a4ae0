"""Lists every experiment by name, and makes the one that a config names."""

import pkgutil
from pathlib import Path

from ml_collections import ConfigDict
from rich.console import Console

from experiments.settings import check_config, one_of

# "module:class" by the ``experiment`` of a config. A module is imported when it is needed.
EXPERIMENTS = {
    "extrapolation": "experiments.studies.text:Comparison",
    "phases": "experiments.studies.text:Phased",
    "images": "experiments.studies.multimodal.images:Images",
    "story": "experiments.studies.multimodal.story:Story",
    "pointing": "experiments.studies.multimodal.pointing:Pointing",
    "video": "experiments.studies.multimodal.video:Videos",
    "one_task": "experiments.studies.tasks.one_task:OneTask",
    "tasks": "experiments.studies.tasks.study:Questions",
    "learned": "experiments.studies.tasks.one_task:Learned",
    "longrope": "experiments.studies.longrope.study:LongRoPESearch",
    "extension": "experiments.studies.extension.study:Extension",
    "atlas": "experiments.studies.atlas:Atlas",
    "claims": "experiments.studies.claims.study:Claims",
    "probed": "experiments.studies.claims.study:Probed",
    "rung": "experiments.studies.ladder:Rung",
    "ladder": "experiments.studies.ladder:Ladder",
    "onset": "experiments.studies.copying:Onset",
    "copying": "experiments.studies.copying:Copying",
}


def make_experiment(config: ConfigDict, workdir: Path, console: Console):
    """Returns the experiment that ``config`` describes; nothing is run.

    All results go into ``workdir``; points that are finished there are not run again. Raises a
    ValueError if the config names no experiment, or cannot work.
    """
    name = one_of("config.experiment", config.experiment, EXPERIMENTS)
    check_config(config)
    return pkgutil.resolve_name(EXPERIMENTS[name])(config, workdir, console)
