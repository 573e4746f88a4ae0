"""Holds the records of an experiment on drawn examples, such as images or tasks, in panels.

What models have learned of one task each is measured as the shares of right rows and of right
answers, by task and by the tokens of a row, and for each of ``SHARES`` as ``steps_to``: after how
many steps a model had this share of the held-out rows, inf for never.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from experiments.results import table
from experiments.results.drawing import INK, SOFT, finish, styles_of
from experiments.results.statistics import Record
from experiments.results.table import Table, means, select

X = int | float | str
# The metrics of tasks: the shares of rows whose answers are all right, and of right answers.
EXACT, ANSWERS = "exact match", "answers right"
# The share of rows that a seed must have right to have solved a task; at the trained length most
# seeds must have it for a scheme to have learned the task.
SOLVED = 0.9
# The shares of held-out rows to which steps are counted.
SHARES = (SOLVED, 0.95)


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
    own = select(tasks, measure=EXACT)
    own = own[own["x"] == tasks["x"].min()]
    share = (own["value"] >= SOLVED).groupby([own["scheme"], own["split"]]).mean()
    known = share[share > 0.5].index
    return tasks[pd.MultiIndex.from_frame(tasks[["scheme", "split"]]).isin(known)]


def solved_table(tasks: pd.DataFrame) -> Table:
    """Returns how many seeds have solved each task that any scheme has learned."""
    rows, known = select(tasks, measure=EXACT), learned(tasks)
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
    return Table(
        "Tasks solved",
        words.reindex(most)[cells["column"].unique()],
        f"How many seeds have {SOLVED:.0%} of the rows right. A task that most seeds of a scheme "
        "do not solve at the trained length is not read in longer rows.",
    )


def steps_to(share: float) -> str:
    """Returns the measure of steps to a share of the held-out rows."""
    return f"steps to {share:.0%}"


def learned_table(study: str, frame: pd.DataFrame, task: str, metric: str = EXACT) -> Table:
    """Returns what the schemes of one study have learned of a task, the best and quickest first.

    Columns are how many models have learned the task; for each of ``SHARES`` the steps that each
    model took to it; and for each task and length the percentages, by ``metric``, of the models
    that have learned the task, if most have.
    """
    models = frame.set_index(["scheme", "seed"])
    own = select(models, split=task, measure=EXACT)
    is_learned = own.loc[own["x"] == own["x"].min(), "value"] >= SOLVED
    counts = is_learned.groupby("scheme").agg(["sum", "size"])
    quick = select(models, measure=steps_to(SOLVED))["value"].groupby("scheme").mean()
    order = pd.DataFrame({"fail": -counts["sum"], "quick": quick})
    schemes = order.sort_values(["fail", "quick"], kind="stable").index
    cells = pd.DataFrame(index=schemes)
    cells["learned"] = counts["sum"].astype(str) + " of " + counts["size"].astype(str)
    for share in SHARES:
        steps = select(models, measure=steps_to(share))["value"]
        cells[steps_to(share)] = _by_scheme(steps[np.isfinite(steps)], "{:,.0f}").reindex(schemes)
    is_most = 2 * counts["sum"] > counts["size"]
    for (of, tokens), rows in select(models, measure=metric).groupby(["split", "x"], sort=False):
        shares = _by_scheme(100 * rows["value"][is_learned.reindex(rows.index)], "{:.0f}")
        cells[f"{of}, {tokens:g}"] = shares.reindex(schemes).where(is_most, "not learned")
    caption = (
        f"A model has learned a task if it has {SOLVED:.0%} of the rows of the trained length "
        "right. Steps and shares, in percent, are those of each model."
    )
    return Table(f"{study}: {metric}", cells.fillna("-").rename_axis("scheme"), caption)


def _by_scheme(numbers: pd.Series, form: str) -> pd.Series:
    """Returns the sorted numbers of each scheme as one text."""
    texts = numbers.sort_values().map(form.format).astype(str)
    return texts.groupby("scheme").agg(" ".join)


def drawn_panels(frame: pd.DataFrame, chances: Mapping[Panel, Sequence[float]]) -> Figure:
    """Draws a plot for each panel that has results, its columns evenly spaced.

    Bands are 95 % intervals over seeds. Dotted lines are the blind guess, ``chances``, and the
    conditions of training.
    """
    cells = {p: means(select(frame, split=p.condition, measure=p.metric)) for p in chances}
    cells = {panel: of for panel, of in cells.items() if len(of)}
    styles = styles_of(frame["scheme"].unique())
    columns = min(2 if len(cells) < 5 else 3, len(cells))
    rows = -(-len(cells) // columns)
    figure = Figure(figsize=(8.8, 3.3 * rows + 0.5), layout="constrained")
    lines = {}
    for place, (panel, of) in enumerate(cells.items(), 1):
        axes, names = figure.add_subplot(rows, columns, place), list(map(named, panel.xs))
        for scheme, line in of[np.isfinite(of["mean"])].groupby("scheme", sort=False):
            places = [names.index(named(x)) for x in line["x"]]
            style = styles[scheme] | {"marker": "o", "markersize": 3}
            (lines[scheme],) = axes.plot(places, line["mean"], **style)
            margin = line["margin"].fillna(0)
            band = line["mean"] - margin, line["mean"] + margin
            axes.fill_between(places, *band, color=style["color"], alpha=0.12, lw=0)
        if chances[panel]:
            axes.plot(chances[panel], ":", color=INK, linewidth=1)
        for x in panel.trained:
            axes.axvline(panel.xs.index(x), color=SOFT, linewidth=0.9, linestyle=":")
        axes.set_xticks(range(len(panel.xs)), names)
        axes.set(xlabel=panel.xlabel, ylabel=panel.metric)
        axes.set_title(panel.condition, loc="left", fontsize=10, parse_math=False)
        finish(axes)
    # A handle is long enough for every dash.
    look = {"ncols": 4, "handlelength": 3.4, "frameon": False}
    handles = [lines[scheme] for scheme in sorted(lines)]
    figure.legend(handles, sorted(lines), loc="outside upper left", **look)
    return figure


def named(x: X) -> str:
    """Returns a column of a panel in words."""
    return x if isinstance(x, str) else f"{x:g}"
