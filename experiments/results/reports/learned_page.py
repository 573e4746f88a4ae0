"""Writes what models have learned of one task each: a page, its data, and a table of docs/."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from experiments.results.answers import SOLVED
from experiments.results.learning import summary
from experiments.results.panels import ANSWERS, EXACT
from experiments.results.record import write_files
from experiments.results.reports.markdown import markdown_table
from experiments.results.reports.page import GridCell, grid, terminal_table
from experiments.results.reports.templates import document, fill

MULTIPLES = (1, 2, 3, 4)  # of the trained length
STEPS = f"steps to {100 * SOLVED:.0f} %"
HEADS = ("study", "scheme", "learned", STEPS, *(f"{n}x" for n in MULTIPLES), "sparse 1x")


def write(
    folder: Path, values: pd.DataFrame, summaries: Mapping[str, str], about: Mapping[str, Any]
) -> Path:
    """Writes ``report.html`` and ``learned.csv`` into ``folder`` and returns the page's path.

    ``values`` is the table of ``results/learning.py``, and ``summaries`` says of each study how its
    models were trained and tested. ``about`` has ``command, rules, device, git, date``.
    """
    studies = {name: rows for name, rows in values.groupby("study", sort=False)}
    body = fill(
        "learned.html",
        solved=f"{SOLVED:.0%}",
        missing=", ".join(name for name in summaries if name not in studies),
        studies=[
            {"name": name, "summary": summaries[name], "rows": grid(*_shown(rows))}
            | {
                "answers": grid(*_shown(rows, ANSWERS))
                if (rows["metric"] == ANSWERS).any()
                else None
            }
            for name, rows in studies.items()
        ],
        about=about,
    )
    html = document("Tasks that are learned", body)
    write_files(folder, {"report.html": html, "learned.csv": values.to_csv(index=False)})
    return folder / "report.html"


def print_tables(values: pd.DataFrame, console: Console) -> None:
    """Prints a table for each study that has a result."""
    for name, rows in values.groupby("study", sort=False):
        console.print(terminal_table(name, *_shown(rows)))


def _shown(rows: pd.DataFrame, metric: str = EXACT) -> tuple[list[str], dict[str, list[GridCell]]]:
    """Returns the heads of the table of a study, and its cells by scheme."""
    table = summary(rows, metric)
    return list(table.columns), {name: [*map(GridCell, row)] for name, row in table.iterrows()}


def tables(data: Path) -> dict[str, str]:
    """Returns the table by its heading, of the results in ``data/learned.csv``."""
    values = pd.read_csv(data / "learned.csv")
    by_study = values.groupby("study", sort=False)
    lines = [line for name, rows in by_study for line in _lines(name, rows)]
    return {"Tasks learned alone": markdown_table(HEADS, lines)}


def _lines(study: str, rows: pd.DataFrame) -> list[list[str]]:
    """Returns the rows of a study's schemes; lengths and tasks that it did not test are empty."""
    (task,) = rows.loc[rows["is_trained"], "task"].unique()
    tokens = rows["tokens"].min()
    shown = [f"{task}, {multiple * tokens}" for multiple in MULTIPLES]
    shown.append(f"{task}_sparse, {tokens}")
    table = summary(rows).drop(index="chance")
    return [
        [f"`{study}`", f"`{scheme}`", cells["learned"], cells[f"steps to {SOLVED:.0%}"]]
        + [cells.get(name, "") for name in shown]
        for scheme, cells in table.iterrows()
    ]
