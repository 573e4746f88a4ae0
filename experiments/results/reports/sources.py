"""Reads the results that the repository keeps, for all pages, tables and sentences about them.

The answers about trained models that are made longer come from the records of
``configs/extension.py``. The answers about models that were trained longer than the atlas'
come from an archive of ``configs/extrapolation.py:long``, and the answers about models that learn
one task from the table of ``configs/learned.py``. See ``results/answers.py`` for the columns.
"""

import dataclasses
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.results import archive, atlas_data
from experiments.results.answers import MANUAL, TEXT, gains, judged, losses, table
from experiments.results.atlas import Atlas
from experiments.results.learning import values_of
from experiments.results.lengths import with_window
from experiments.results.record import read_json
from experiments.results.reports import ladder_page, trust
from experiments.results.statistics import Record

# The end of a topic and of a family about models that were trained for longer than the atlas'.
LONGER = "trained longer"


@dataclasses.dataclass(frozen=True)
class Sources:
    """Holds the results that tables and sentences are made of.

    Attributes:
      atlas: the atlas.
      longer: the answers of models that were trained longer, see ``answers.judged``.
      longer_families: the families that these were compared in.
      longer_tokens: how many tokens these models have seen.
      ledger: what ``docs/claims/claims.json`` has.
      trust: the badges of the questions of the atlas.
      ladder: what ``ladder_page.read`` returns of ``docs/ladder``.
      one_task: the answers of models that learn one task; a topic is a study.
      copied: how well models of the ladder copy, see ``evaluation/copying.py``.
    """

    atlas: Atlas
    longer: pd.DataFrame
    longer_families: pd.DataFrame
    longer_tokens: int
    ledger: dict[str, Any]
    trust: dict[trust.Question, list[str]]
    ladder: dict[str, Any]
    one_task: pd.DataFrame
    copied: pd.DataFrame


def read(docs: Path) -> Sources:
    """Returns the results in the folder ``docs``, or raises a ValueError if one is damaged."""
    runs = archive.evaluations(docs / "data/extrapolation_long.tar.xz")
    longer, longer_families = judged(_longer([record for run in runs for record in run["records"]]))
    one_task, _ = judged(values_of(pd.read_csv(docs / "data/learned.csv")))
    return Sources(
        atlas=atlas_data.load(docs / "atlas"),
        longer=longer,
        longer_families=longer_families,
        longer_tokens=runs[0]["training"]["tokens"],
        ledger=read_json(docs / "claims/claims.json"),
        trust=trust.read(docs / "atlas" / trust.JSON),
        ladder=ladder_page.read(docs / "ladder"),
        one_task=one_task,
        copied=pd.read_csv(docs / "data/copied.csv"),
    )


def read_extension(path: Path) -> pd.DataFrame:
    """Returns the loss of every way to make a model longer.

    A topic is "made longer, 0 steps" before any fine-tuning, and so on.
    """
    records, tables = pd.read_csv(path), []
    for steps in sorted(records["steps"].unique()):
        # The plain model, which is not tuned, is read through a window.
        at = records[(records["steps"] == steps) | (records["protocol"] == "windowed")]
        topic, of = f"made longer, {steps} steps", with_window(at.to_dict("records"))
        tables.append(losses(of, "test", "last", topic, "loss when made longer"))
    return pd.concat(tables, ignore_index=True)


def _longer(records: list[Record]) -> pd.DataFrame:
    """Returns the losses and gains of models that were trained longer, from records on text.

    A topic is a topic of the atlas with an end, such as "text, trained longer".
    """
    records = with_window(records)
    parts = [
        losses(records, "test", "last", "text", TEXT),
        losses(records, "manual", "last", "manual", MANUAL),
        gains(records),
    ]
    values = pd.concat(parts, ignore_index=True)
    for key in ("topic", "family"):
        values[key] += f", {LONGER}"
    return table(values.drop(columns="question"))
