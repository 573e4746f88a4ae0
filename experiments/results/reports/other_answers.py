"""Reads answers of experiments beside the atlas, as tables of values, for the guide.

The answers about trained models that are made longer come from the records of
``configs/extension.py``. Those about models that were trained longer than the atlas' come from an
archive of ``configs/extrapolation.py:long``. Those about images, screens, videos and stories come
from archives of the experiments in ``studies/multimodal``, as columns of the tables in
``docs/multimodal.md``. See ``results/answers.py`` for the columns.
"""

from pathlib import Path

import pandas as pd

from experiments.results import archive
from experiments.results.answers import MANUAL, TEXT, gains, losses, table
from experiments.results.panels import chances
from experiments.results.reports.multimodal_tables import TABLES, Table

# The end of a topic and of a family about models that were trained for longer than the atlas'.
LONGER = "trained longer"
# What stands for RoPE: tokens are counted in videos, and frames in stories.
_ROPE = {"video": "vanilla", "story": "frame_index"}


def read_extension(path: Path) -> pd.DataFrame:
    """Returns the loss of every way to make a model longer; empty if there are no records.

    A topic is "made longer, 0 steps" before any fine-tuning, and so on.
    """
    if not path.exists():
        return table([])
    records = pd.read_csv(path)
    tables = []
    for steps in sorted(records["steps"].unique()):
        # The plain model, which is not tuned, is read through a window.
        at = records[(records["steps"] == steps) | (records["protocol"] == "windowed")]
        topic = f"made longer, {steps} steps"
        tables.append(losses(at.to_dict("records"), "test", "last", topic, "loss when made longer"))
    return pd.concat(tables, ignore_index=True)


def read_longer(path: Path) -> pd.DataFrame:
    """Returns the losses and gains in an archive of results on text; empty if there is none.

    The topics are those of the atlas with an end, such as "text, trained longer".
    """
    if not path.exists():
        return table([])
    records = archive.records(path)
    parts = [
        losses(records, "test", "last", "text", TEXT),
        losses(records, "manual", "last", "manual", MANUAL),
        gains(records),
    ]
    values = pd.concat(parts, ignore_index=True)
    for key in ("topic", "family"):
        values[key] += f", {LONGER}"
    return table(values.drop(columns="question").to_dict("records"))


def read_tables(archives: Path) -> pd.DataFrame:
    """Returns the answers in ``TABLES`` from archives in a folder; some may be missing.

    A topic is a heading and a column, such as "images, 28", and the multiple is 0. What stands for
    RoPE is called "rope".
    """
    return pd.concat([_of_table(of, archives) for of in TABLES], ignore_index=True)


def _of_table(of: Table, archives: Path) -> pd.DataFrame:
    study = of.read(archives)
    if study is None:
        return table([])
    (panel,) = study.panels
    # The guide takes chance as a floor, which it is for accuracy and not for an error.
    chance = {} if of.is_error else chances(study, panel)
    rope = _ROPE.get(of.experiment)
    shared = dict(multiple=0.0, family=of.heading.lower(), unit=of.metric, is_error=of.is_error)
    return table(
        shared
        | dict(topic=of.topic(r["x"]), chance=chance.get(r["x"]))
        | dict(scheme="rope" if r["scheme"] == rope else r["scheme"], seed=r["seed"])
        | dict(value=r["value"])
        for r in study.records
    )
