"""Holds the records of an experiment on drawn examples, such as images or tasks, in panels."""

import dataclasses
from collections.abc import Iterable

import pandas as pd

from experiments.results import table
from experiments.results.statistics import Record

X = int | float | str
# The metrics of tasks: the shares of rows whose answers are all right, and of right answers.
EXACT, ANSWERS = "exact match", "answers right"
# The share of rows that a seed must have right to have solved a task; at the trained length most
# seeds must have it for a scheme to have learned the task.
SOLVED = 0.9


@dataclasses.dataclass(frozen=True)
class Panel:
    """Describes one table and one plot.

    Attributes:
      condition: the condition that is varied, or how.
      metric: the measured quantity, "accuracy" or an error.
      xlabel: the name of x, with its unit.
      xs: the columns, in order.
      trained: the columns with the conditions of training.
      is_error: whether lower is better.
    """

    condition: str
    metric: str
    xlabel: str
    xs: tuple[X, ...]
    trained: tuple[X, ...] = ()
    is_error: bool = False

    @property
    def title(self) -> str:
        """Names the condition and the metric."""
        return f"{self.condition}: {self.metric}"


@dataclasses.dataclass(frozen=True)
class Result:
    """Holds one number that was measured.

    Attributes:
      condition: the condition of its panel.
      x: its column.
      metric: the metric of its panel.
      value: the number.
      chance: the value of a blind guess, if it is known.
    """

    condition: str
    x: X
    metric: str
    value: float
    chance: float | None = None


def tidy(study: str, records: Iterable[Record]) -> pd.DataFrame:
    """Returns the results of panels as a tidy table; the split is the condition.

    The unit of an error is what its name says after "in", and that of another metric is "share".
    """
    rows = []
    for r in records:
        row = {key: r[key] for key in ("scheme", "seed", "x", "value")}
        unit = r["metric"].partition(" in ")[2] or "share"
        rows.append(row | {"split": r["condition"], "measure": r["metric"], "unit": unit})
    return table.tidy(study, rows)


def learned(tasks: pd.DataFrame) -> pd.DataFrame:
    """Returns the rows of schemes that have learned their task at the trained length."""
    own = table.select(tasks, measure=EXACT)
    own = own[own["x"] == tasks["x"].min()]
    share = (own["value"] >= SOLVED).groupby([own["scheme"], own["split"]]).mean()
    known = share[share > 0.5].index
    return tasks[pd.MultiIndex.from_frame(tasks[["scheme", "split"]]).isin(known)]


def solved_table(tasks: pd.DataFrame) -> table.Table:
    """Returns how many seeds have solved each task that any scheme has learned."""
    rows, known = table.select(tasks, measure=EXACT), learned(tasks)
    trained = tasks["x"].min()
    cells = rows[rows["split"].isin(known["split"])].assign(
        column=rows["split"] + (rows["x"] / trained).map(" {:g}x".format),
        is_right=rows["value"] >= SOLVED,
        is_told=(rows["x"] == trained) | rows.index.isin(known.index),
    )
    groups = cells.groupby(["scheme", "column"], sort=False)
    solved, seeds = groups["is_right"].sum(), groups["is_right"].size()
    words = solved.map(str) + " of " + seeds.map(str)
    words = words.where(groups["is_told"].any(), "-").unstack(fill_value="")
    most = solved.groupby("scheme").sum().sort_values(ascending=False, kind="stable").index
    return table.Table(
        "Tasks solved",
        words.reindex(most)[cells["column"].unique()],
        f"How many seeds have {SOLVED:.0%} of the rows right. A task that most seeds of a scheme "
        "do not solve at the trained length is not read in longer rows.",
    )
