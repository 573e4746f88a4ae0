"""Reads what the experiments found about schemes."""

from typing import NamedTuple

import pandas as pd

from experiments.results import lengths, pages, panels
from experiments.results.comparisons import margins, marks
from experiments.results.table import Table, grid, select

_TEXT = {"last": "bits per byte, ", "gain": "gain, "}


class Results(NamedTuple):
    """Holds what the atlas says of a scheme.

    Attributes:
      table: answers by multiple of the trained length, in Markdown, or nothing.
      not_learned: the tasks that the scheme has not learned.
    """

    table: str
    not_learned: list[str]


def of_scheme(name: str) -> Results:
    """Returns what the atlas says of a scheme."""
    answers = select(pages.read("atlas"), scheme=name)
    tasks = select(answers, study="tasks", measure=panels.EXACT)
    learned = panels.learned(tasks)
    text = select(answers, study="language")
    text = pd.concat([select(text, measure="last"), lengths.gains(text)])
    if text.empty and learned.empty:
        return Results("", [])
    told = select(pages.compared("atlas"), study="language", scheme=name, measure=_TEXT)
    rows = [text.assign(row=_rows(text)), learned.assign(row="rows right, " + learned["split"])]
    multiples = [text["x"], learned["x"] / tasks["x"].min()]
    answers = [
        table.assign(x=x, scheme=table["row"]) for table, x in zip(rows, multiples, strict=True)
    ]
    told = told.assign(scheme=_rows(told))
    made = grid(
        pd.concat(answers),
        name,
        schemes=list(pd.concat(rows)["row"].unique()),
        heads="{:g}x".format,
        marks=marks(told),
        margins=margins(select(told, measure="gain")),
    )
    shown = Table("", made.cells.rename_axis("question"))
    return Results(shown.markdown(), sorted(set(tasks["split"]) - set(learned["split"])))


def _rows(text: pd.DataFrame) -> pd.Series:
    return text["measure"].map(_TEXT) + text["split"]


def claims(scheme: str) -> list[dict[str, str]]:
    """Returns the published claims about a scheme that were tested, with their verdicts."""
    verdicts = pages.verdicts().drop_duplicates("claim")
    is_about = [scheme in schemes.split() for schemes in verdicts["schemes"]]
    return verdicts[is_about].to_dict("records")
