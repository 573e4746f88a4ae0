"""Makes the tables of docs/extension.md, of methods and of searches that make a model longer."""

import math
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.results.extensions import LAST, ExtensionStudy, retention, windowed
from experiments.results.lengths import summarise
from experiments.results.reports import templates
from experiments.results.reports.markdown import markdown_table
from experiments.results.reports.page import GridCell
from experiments.results.statistics import mean_and_stderr, number, words

# A column shows one of these, or how much the loss at short context grew.
LOSS, ACCURACY = "loss", "short accuracy kept"


TABLES, SEARCHED = map(templates.tables, ("extension_tables", "searched"))


def read(path: Path) -> ExtensionStudy:
    """Returns the records in a file of docs/data, without training and settings.

    Raises:
      OSError: the file cannot be read.
    """
    table = pd.read_csv(path).astype(object)
    records: list[dict[str, Any]] = table.where(table.notna(), None).to_dict("records")
    return ExtensionStudy(records, [], [], {}, [])


def markdown(table: templates.Table, study: ExtensionStudy) -> str:
    """Returns a table as Markdown, with a last row for the plain model read through a window."""
    lengths = {r["multiple"]: r["length"] for r in study.records if r["protocol"] == LAST}
    cells = {
        steps: summarise(r for r in study.records if r["steps"] == steps) for steps in study.steps
    }
    retained = retention(study)

    def cell(scheme: str, kind: str, steps: int, multiple: int) -> str:
        if kind != LOSS:
            left = retained.get((scheme, steps))
            return left.words[kind == ACCURACY] if left else ""
        if lengths[multiple] not in cells[steps].get(scheme, {}):
            return ""
        return GridCell(*words(cells[steps], scheme, lengths[multiple])).markdown

    _, steps, multiple = table.columns[table.by]
    judged = {scheme: row.get(lengths[multiple]) for scheme, row in cells[steps].items()}
    schemes = {r["scheme"] for r in study.records if r["protocol"] == LAST}
    rows = [
        [f"`{scheme}`", *(cell(scheme, *column) for column in table.columns.values())]
        for scheme in sorted(schemes, key=lambda name: ((judged.get(name) or (math.inf,))[0], name))
    ]
    if level := windowed(study):
        mean = GridCell(*words({"windowed": {0: level}}, "windowed", 0)).markdown
        rows.append(["*windowed*", mean, *[""] * (len(table.columns) - 1)])
    return markdown_table(["method", *table.columns], rows)


def searched(table: templates.Table, records: pd.DataFrame) -> str:
    """Returns a table as Markdown: means over seeds, and standard errors if there are several."""

    def cell(losses: pd.Series) -> str:
        if losses.empty:
            return "-"
        mean, stderr, _ = mean_and_stderr(losses)
        return number(mean) if stderr is None else f"{number(mean)} ± {number(stderr, mean)}"

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
    made = {table.heading: markdown(table, read(data / table.file)) for table in TABLES}
    return made | {
        table.heading: searched(table, pd.read_csv(data / table.file)) for table in SEARCHED
    }
