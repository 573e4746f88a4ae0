"""Reads answers of experiments beside the atlas, in the form of the atlas' own, for the guide.

The answers about trained models that are made longer come from the records of
``configs/extension.py``. Those about models that were trained longer than the atlas' come from an
archive of ``configs/extrapolation.py:long``. Those about images, screens, videos and stories come
from archives of the experiments in ``studies/multimodal``, as columns of the tables in
``docs/multimodal.md``.
"""

import csv
import dataclasses
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from experiments.results import archive
from experiments.results.atlas import Question, answers_to, gains, losses
from experiments.results.panels import chances
from experiments.results.reports.multimodal_tables import TABLES, Table
from experiments.results.statistics import by_seed

Answer = dict[str, Any]
# The end of a topic about models that were trained for longer than those of the atlas.
LONGER = "trained longer"
# What stands for RoPE: tokens are counted in videos, and frames in stories.
_ROPE = {"video": "vanilla", "story": "frame_index"}


def read_extension(path: Path) -> list[Answer]:
    """Returns the loss of every way to make a model longer, or none if there are no records.

    A topic is "made longer, 0 steps" before any fine-tuning, and so on.
    """
    if not path.exists():
        return []
    values: dict[tuple[int, float], dict[str, dict[int, float]]] = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            if (row["split"], row["protocol"]) == ("test", "last"):
                key = int(row["steps"]), float(row["multiple"])
                seeds = values.setdefault(key, {}).setdefault(row["scheme"], {})
                seeds[int(row["seed"])] = float(row["bits_per_byte"])
    return _answers(
        Question(f"made longer, {steps} steps", multiple, "", "bits per byte", True, by_scheme)
        for (steps, multiple), by_scheme in values.items()
    )


def read_longer(path: Path) -> list[Answer]:
    """Returns the losses and gains in an archive of results on text, or none if there is none.

    The topics are those of the atlas with an end, such as "text, trained longer".
    """
    if not path.exists():
        return []
    records = archive.records(path)
    found = [*losses(records, "test", "last", "text"), *losses(records, "manual", "last", "manual")]
    found += gains(records)
    return _answers(dataclasses.replace(each, topic=f"{each.topic}, {LONGER}") for each in found)


def read_tables(archives: Path) -> list[Answer]:
    """Returns the answers in ``tables.TABLES`` from archives in a folder; some may be missing.

    A topic is a heading and a column, such as "images, 28", and the multiple is 0. What stands for
    RoPE is called "rope".
    """
    return [answer for table in TABLES for answer in _answers(_of_table(table, archives))]


def _of_table(table: Table, archives: Path) -> Iterable[Question]:
    study = table.read(archives)
    if study is None:
        return
    (panel,) = study.panels
    values = by_seed(study.records, "x", "value", table.heading)
    # The guide takes chance as a floor, which it is for accuracy and not for an error.
    chance = {} if table.is_error else chances(study, panel)
    rope = _ROPE.get(table.experiment)
    for x in panel.xs:
        rows = {
            "rope" if name == rope else name: row[x] for name, row in values.items() if x in row
        }
        yield Question(table.topic(x), 0.0, "", table.metric, table.is_error, rows, chance.get(x))


def _answers(questions: Iterable[Question]) -> list[Answer]:
    """Returns all answers; one that is not finite has no mean, as in JSON."""
    found = [answer for question in questions for answer in answers_to(question, question.values)]
    return [a | {"mean": a["mean"] if math.isfinite(a["mean"]) else None} for a in found]
