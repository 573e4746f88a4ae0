"""Draws the figures of a length study, as SVG."""

import math
import statistics
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import optimize

from experiments.results import lengths
from experiments.results.length_table import length_table
from experiments.results.reports import drawing
from experiments.results.statistics import BASELINE, Record, by_seed, cells_of, number


def draw(study: lengths.LengthStudy) -> dict[str, str]:
    """Returns the figures as SVG by name; a figure without data is left out."""
    points = [
        curve | {"protocol": "curve", "stride": None, "length": position, "loss": loss}
        for curve in study.curves
        for position, loss in zip(curve["positions"], curve["loss"], strict=True)
    ]
    by_length = cells(study)
    of_split = [point for point in points if point["split"] == study.main.split]
    by_position = _cells(of_split, "loss", "curve")
    styles = drawing.styles_of({*by_length["scheme"], *by_position["scheme"]})
    length = (by_length, styles, "context length in tokens", "bits per byte")
    position = (by_position, styles, "position in the longest context", "nats per token")
    with drawing.drawing_style():
        drawn = {
            "loss_vs_length": lines(study, *length) if len(by_length) else None,
            "loss_vs_position": lines(study, *position) if len(by_position) else None,
            "protocols": _panels(study),
        }
        return {name: drawing.svg(figure) for name, figure in drawn.items() if figure}


def cells(study: lengths.LengthStudy, evaluation: lengths.Evaluation | None = None) -> pd.DataFrame:
    """Returns the cells of an evaluation, by default the main one, in bits per byte."""
    evaluation = evaluation or study.main
    what = f"{evaluation.split}, {evaluation.protocol}"
    return _cells(lengths.records_of(study.records, evaluation), "bits_per_byte", what)


def _cells(records: list[Record], metric: str, what: str) -> pd.DataFrame:
    return cells_of(by_seed(records, "length", metric, what)).sort_values(["scheme", "x"])


def lines(
    study: lengths.LengthStudy, table: pd.DataFrame, styles, xlabel: str, ylabel: str
) -> Figure:
    """Draws losses on a log2 axis, exploding lines cut off, names at the line ends."""
    height = max(4.6, 0.21 * table["scheme"].nunique() + 1)
    figure = Figure(figsize=(8.8, height))
    axes = figure.add_axes((0.075, 0.62 / height, 0.66, 1 - 0.8 / height))
    _draw(axes, study, table, styles)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    low, high = axes.get_ylim()
    last = table["x"].max()
    ends = []
    for name, line in table.groupby("scheme", sort=False):
        x, mean = line[["x", "mean"]].iloc[-1]
        outside = "" if mean < high else f" ↑ {number(mean)}"
        label = name + outside + ("" if x == last else f" (to {x})")
        ends.append(((mean - low) / (high - low), name, label, mean < high and x == last))
    ends.sort()
    heights = _spread([end for end, *_ in ends], gap=0.2 / (height - 0.8))
    for (end, name, label, is_joined), y in zip(ends, heights, strict=True):
        style = styles[name] | {"clip_on": False, "transform": axes.transAxes}
        axes.plot((1.045, 1.09), (y, y), **style)
        if is_joined:
            axes.plot((1, 1.045), (end, y), **style | {"linewidth": 0.6, "linestyle": "-"})
        weight = "bold" if name == BASELINE else "normal"
        place: dict[str, Any] = dict(
            transform=axes.transAxes, verticalalignment="center", weight=weight
        )
        axes.text(1.1, y, label, parse_math=False, **place)
    return figure


def _draw(axes: Axes, study: lengths.LengthStudy, table: pd.DataFrame, styles) -> None:
    of_scheme = table[np.isfinite(table["mean"])].groupby("scheme", sort=False)["mean"]
    means = sorted(table["mean"][np.isfinite(table["mean"])]) or [0.0]
    # The plot shows the best point of every line, all points of the two best lines, and losses up
    # to three times the spread of the better half above the median.
    inside = [*of_scheme.min(), *of_scheme.max().nsmallest(2)]
    high = min(max([4 * statistics.median(means) - 3 * means[0], *inside]), means[-1])
    margin = 0.05 * (high - means[0]) or 0.05
    low, high = means[0] - margin, high + margin
    for name, line in table.groupby("scheme", sort=False):
        xs, ys, colour = list(line["x"]), list(line["mean"]), styles[name]["color"]
        marker = {"marker": "o" if len(xs) < 9 else "", "markersize": 3}
        drawing.line_with_band(axes, line["x"], line, **styles[name] | marker)
        for x, next_x, y, next_y in zip(xs, xs[1:], ys, ys[1:], strict=False):
            if y <= high < next_y < math.inf:
                x *= (next_x / x) ** ((high - y) / (next_y - y))
                axes.plot(x, high, "^", color=colour, markersize=6, clip_on=False)
            elif y < next_y == math.inf:
                axes.plot(x, y, "x", color=colour, markersize=7)
    usual = study.about["train_length"]
    ticks = sorted(table["x"].unique())
    first, last = ticks[0], ticks[-1]
    if len(ticks) > 8:
        doublings = (usual * 2.0**k for k in range(-20, 20))
        ticks = [int(x) for x in doublings if x.is_integer() and first <= x <= last]
    axes.axvline(usual, color="#444444", linewidth=0.9, linestyle=":")
    axes.set_xscale("log", base=2)
    axes.set(xlim=(first * 0.97, last * 1.0001), ylim=(low, high))
    axes.set_xticks(ticks, [f"{x}\n{x / usual:g}x" if x >= usual else f"{x}" for x in ticks])
    axes.minorticks_off()
    drawing.finish(axes)


def _spread(wanted: list[float], gap: float) -> np.ndarray:
    """Returns heights in [0, 1], ``gap`` apart, closest to ``wanted`` by least squares."""
    gaps = gap * np.arange(len(wanted))
    lowest = optimize.isotonic_regression(np.minimum(wanted, 2.0) - gaps).x
    return lowest.clip(0, 1 - gaps[-1]) + gaps


def _panels(study: lengths.LengthStudy) -> Figure | None:
    """Draws the protocols side by side, for a few schemes from the best to the worst."""
    tables = {
        lengths.evaluation_name(study, evaluation): cells(study, evaluation)
        for evaluation in lengths.evaluations(study)
        if evaluation.split == study.main.split
    }
    order = length_table(study, study.main).cells["scheme"].unique()
    names = [s for s in order if all(s in set(table["scheme"]) for table in tables.values())]
    if len(tables) < 2 or not names:
        return None
    return panels(study, tables, names[:: -(-len(names) // 6)])


def panels(study: lengths.LengthStudy, tables: dict[str, pd.DataFrame], names: list[str]) -> Figure:
    """Draws a plot for each scheme of ``names``, and in it a line for each of ``tables``."""
    styles = drawing.styles_of(tables)
    rows = -(-len(names) // 3)
    figure = Figure(figsize=(8.8, 2.4 * rows + 0.4), layout="constrained")
    for i, name in enumerate(names):
        axes = figure.add_subplot(rows, 3, i + 1)
        of = [t[t["scheme"] == name].assign(scheme=line) for line, t in tables.items()]
        _draw(axes, study, pd.concat(of), styles)
        axes.set_title(name, loc="left", fontsize=10, parse_math=False)
        axes.tick_params(labelsize=7.5)
    handles = [axes.plot([], [], **styles[p], label=p)[0] for p in tables]
    figure.legend(handles=handles, loc="outside upper left", ncols=len(handles), frameon=False)
    return figure
