"""Makes the tables of docs/extension.md, of methods and of searches that make a model longer."""

import math
from pathlib import Path

import pandas as pd

from experiments.results.answers import Answer, by_question, judged, marked
from experiments.results.extensions import retention
from experiments.results.lengths import WINDOWED
from experiments.results.reports import templates
from experiments.results.reports.markdown import families_below, markdown_table
from experiments.results.reports.sources import read_extension
from experiments.results.statistics import mean_and_margin, with_margin

TABLES, SEARCHED = map(templates.tables, ("extension_tables", "searched"))


def of_methods(table: templates.Table, path: Path) -> str:
    """Returns a table as Markdown, from the records in a file of docs/data.

    A mark says that a loss is better or worse than that of the plain model through a window, which
    has the last row.
    """
    answers, families = judged(read_extension(path))
    answer_of = by_question(answers)
    retained = retention(pd.read_csv(path).to_dict("records"))

    def loss(scheme: str, steps: int, multiple: int) -> Answer | None:
        return answer_of.get((scheme, f"made longer, {steps} steps", multiple))

    def cell(scheme: str, kind: str, steps: int, multiple: int) -> str:
        if kind == "loss":
            answer = loss(scheme, steps, multiple)
            return marked(answer, WINDOWED) if answer else ""
        left = retained.get((scheme, steps))
        return left.words[kind] if left else ""

    _, *by = table.columns[table.by]

    def place(scheme: str) -> tuple[bool, float, str]:
        answer = loss(scheme, *by)
        return scheme == WINDOWED, answer["mean"] if answer else math.inf, scheme

    lines = [
        [f"`{scheme}`", *(cell(scheme, *column) for column in table.columns.values())]
        for scheme in sorted(answers["scheme"].unique(), key=place)
    ]
    of_marks = families[families["against"] == WINDOWED]
    return markdown_table(["method", *table.columns], lines) + families_below(of_marks)


def of_searches(table: templates.Table, records: pd.DataFrame) -> str:
    """Returns a table as Markdown: means over seeds, and half of their 95 % intervals."""

    def cell(losses: pd.Series) -> str:
        if losses.empty:
            return "-"
        mean, margin, _ = mean_and_margin(losses)
        return with_margin(mean, margin)

    rows = []
    for scheme, of_scheme in records.groupby("scheme", sort=False):
        losses = [of_scheme[of_scheme["group"] == g][key] for g, key in table.columns.values()]
        rows.append(([of_column.mean() for of_column in losses], f"`{scheme}`", losses))
    # NaN, where a group has no such encoding, sorts last.
    rows.sort(key=lambda row: [(math.isnan(mean), mean) for mean in row[0]])
    lines = [[name, *map(cell, losses)] for _, name, losses in rows]
    return markdown_table(["encoding", *table.columns], lines)


def tables(data: Path) -> dict[str, str]:
    """Returns all tables by their headings, from the records in the folder ``data``."""
    made = {table.heading: of_methods(table, data / table.file) for table in TABLES}
    return made | {
        table.heading: of_searches(table, pd.read_csv(data / table.file)) for table in SEARCHED
    }
