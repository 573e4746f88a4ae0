"""Makes the table of ``docs/results.md`` on tasks that models have learned alone."""

from pathlib import Path

import pandas as pd

from experiments.results.learning import summary
from experiments.results.reports.markdown import markdown_table

HEADING = "Tasks learned alone"
MULTIPLES = (1, 2, 3, 4)  # of the trained length
HEADS = ("study", "scheme", "learned", "steps to 90 %", *(f"{n}x" for n in MULTIPLES), "sparse 1x")


def tables(data: Path) -> dict[str, str]:
    """Returns the table by its heading, of the results in ``data/learned.csv``."""
    values = pd.read_csv(data / "learned.csv")
    by_study = values.groupby("study", sort=False)
    lines = [line for name, rows in by_study for line in _lines(name, rows)]
    return {HEADING: markdown_table(HEADS, lines)}


def _lines(study: str, rows: pd.DataFrame) -> list[list[str]]:
    """Returns the rows of a study's schemes; lengths and tasks that it did not test are empty."""
    (task,) = rows.loc[rows["is_trained"], "task"].unique()
    tokens = rows["tokens"].min()
    shown = [f"{task}, {multiple * tokens}" for multiple in MULTIPLES]
    shown.append(f"{task}_sparse, {tokens}")
    table = summary(rows).drop(index="chance")
    return [
        [f"`{study}`", f"`{scheme}`", cells["learned"], cells["steps to 90%"]]
        + [cells.get(name, "") for name in shown]
        for scheme, cells in table.iterrows()
    ]
