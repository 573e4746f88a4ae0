"""Makes the table of ``docs/results.md`` on tasks that models have learned alone."""

from pathlib import Path

import pandas as pd

from experiments.results.learning import summary
from experiments.results.reports.markdown import markdown_table

HEADING = "Tasks learned alone"
HEADS = ("study", "scheme", "learned", "steps to 90 %", "trained length", "2x", "3x", "sparse rows")


def tables(data: Path) -> dict[str, str]:
    """Returns the table by its heading, of the results in ``data/learned.csv``."""
    values = pd.read_csv(data / "learned.csv")
    by_study = values.groupby("study", sort=False)
    lines = [line for name, rows in by_study for line in _lines(name, rows)]
    return {HEADING: markdown_table(HEADS, lines)}


def _lines(study: str, rows: pd.DataFrame) -> list[list[str]]:
    """Returns the rows of a study's schemes; lengths that it has not are empty."""
    (task,) = rows.loc[rows["is_trained"], "task"].unique()
    columns = rows[["task", "tokens"]].drop_duplicates().sort_values("tokens")
    names = {
        is_task: [f"{name}, {tokens}" for name, tokens in group.itertuples(index=False)]
        for is_task, group in columns.groupby(columns["task"] == task)
    }
    shown = [*names[True], "", ""][:3] + [*names.get(False, []), ""][:1]
    table = summary(rows).drop(index="chance")
    return [
        [f"`{study}`", f"`{scheme}`", cells["learned"], cells["steps to 90%"]]
        + [cells[name] if name else "" for name in shown]
        for scheme, cells in table.iterrows()
    ]
