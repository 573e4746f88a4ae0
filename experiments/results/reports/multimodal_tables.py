"""Makes the tables of ``docs/multimodal.md``, from archives of results."""

import math
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.results import archive
from experiments.results.answers import AGAINST, MARKS, Answer, by_question, judged, shown, table
from experiments.results.reports import templates
from experiments.results.reports.markdown import families_below, markdown_table

TABLES = templates.tables("multimodal_tables")
# These schemes stand for RoPE: tokens are counted in videos, and frames in stories.
_ROPE = {"video": "vanilla", "story": "frame_index"}


def read(archives: Path) -> pd.DataFrame:
    """Returns the numbers in the tables as ``results/answers.py`` has them.

    A topic is a heading and a column, such as "images, 28", and the multiple is 0. What stands for
    RoPE is called "rope".

    Raises a ValueError if an archive lacks a column, or is damaged.
    """
    rows: list[dict[str, Any]] = []
    for of in TABLES:
        path = archives / f"{of.experiment}.tar.xz"
        records, heading = archive.records(path), of.heading.lower()
        shared = dict(multiple=0.0, family=heading, unit=of.metric, is_error=of.is_error)
        names = {_ROPE.get(of.experiment): "rope"}
        for name, (condition, x) in of.columns.items():
            place = condition, of.metric, x
            column = [r for r in records if (r["condition"], r["metric"], r["x"]) == place]
            if not column:
                raise ValueError(
                    f"{path} has no {of.metric} of {condition} at {x}; make it of a run of "
                    f"configs/{of.experiment}.py:small, or correct templates/tables.yaml"
                )
            rows += [
                shared
                | dict(topic=f"{heading}, {name}", value=r["value"], seed=r["seed"])
                | dict(scheme=names.get(r["scheme"], r["scheme"]))
                # The guide takes chance as a floor, which it is for accuracy and not for an error.
                | dict(chance=None if of.is_error else r["chance"])
                for r in column
            ]
    return table(rows)


def tables(archives: Path) -> dict[str, str]:
    """Returns the tables in Markdown by their headings, from the archives in a folder.

    The scheme that is best in the last column comes first, and one without a number there last.
    """
    answers, families = judged(read(archives))
    answer_of, made = by_question(answers), {}
    for of in TABLES:
        heading = of.heading.lower()
        of_table = answers[answers["family"] == heading]
        is_last = of_table["topic"] == f"{heading}, {list(of.columns)[-1]}"
        last = of_table[is_last].set_index("scheme")["mean"].replace(math.inf, math.nan)
        last = last.reindex(sorted(of_table["scheme"].unique()))
        called = {"rope": _ROPE.get(of.experiment, "rope")}
        lines = [
            [f"`{called.get(scheme, scheme)}`"]
            + [_cell(answer_of.get((scheme, f"{heading}, {name}", 0))) for name in of.columns]
            for scheme in last.sort_values(ascending=of.is_error, kind="stable").index
        ]
        below = families_below(families[families["family"] == heading])
        made[of.heading] = markdown_table(["scheme", *of.columns], lines) + below
    return made


def _cell(answer: Answer | None) -> str:
    """Writes an answer; a mark says that it is better, or worse, than every baseline is."""
    if answer is None:
        return "-"
    words = {word for name in AGAINST if isinstance(word := answer[f"vs_{name}"], str)}
    mark = MARKS.get(words.pop(), "") if len(words) == 1 else ""
    return f"{shown(answer)} {mark}".rstrip()
