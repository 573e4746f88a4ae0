"""Draws what figures of all studies share, and writes them as SVG for light and dark screens."""

import io
import re
from collections.abc import Collection, Iterable
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import scipy
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.results.statistics import BASELINE, number
from experiments.results.table import means

# Okabe and Ito's colours, which colour-blind readers tell apart; their yellow is lost on white.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#aa3377", "#e69f00", "#56b4e9")
INK = "#222222"  # lines of this colour are light where the reader's screen is dark
SOFT = "#8a8a8a"  # is seen on both
DASHES = ("-", (0, (5, 1.6)), (0, (1.4, 1.1)), (0, (6, 1.5, 1.2, 1.5)))
_MOST_NAMES = 24  # at the ends of lines
_LIGHT_OR_DARK = "<style>svg{color:#222}@media(prefers-color-scheme:dark){svg{color:#ddd}}</style>"


def style():
    """Makes figures that are the same every time, with text as paths, which need no font."""
    coloured = "text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"
    chosen: dict[Any, Any] = dict.fromkeys(coloured, INK)
    return matplotlib.rc_context(
        chosen | {"svg.hashsalt": "x", "svg.fonttype": "path", "font.size": 9}
    )


def svg(figure: Figure) -> str:
    """Returns the figure as SVG, without dates and comments, to a hundredth of a point.

    It has no background, and what is drawn in ``INK`` is light where the reader's screen is dark.
    """
    output = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(output, format="svg", metadata=nothing, transparent=True)
    text = re.sub(r"<!--.*?-->\n?", "", output.getvalue(), flags=re.DOTALL)
    text = text.replace(INK, "currentColor")
    text = re.sub("(<svg[^>]*>)", rf"\1{_LIGHT_OR_DARK}", text, count=1, flags=re.DOTALL)
    # Numbers below 1 keep their digits, because some are scales. Labels of axes are not changed.
    places = re.compile(r"\b([1-9]\d*\.\d\d)\d+")
    attribute = re.compile(r'\b(?:d|x|y|transform)="[^"]*"')
    return attribute.sub(lambda match: places.sub(r"\1", match[0]), re.sub(r"\n +", "\n", text))


def styles_of(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Returns matplotlib's keywords for the line of each name; the baseline's is grey."""
    cycle = enumerate(sorted(set(names) - {BASELINE}))
    styles: dict[str, dict[str, Any]] = {
        name: dict(color=COLOURS[i % 6], linestyle=DASHES[i // 6 % 4], linewidth=1.6)
        for i, name in cycle
    }
    return styles | {BASELINE: dict(color=SOFT, linestyle=DASHES[1], linewidth=2.2)}


def finish(axes: Axes) -> None:
    """Draws the grid and leaves out the frame's upper and right lines."""
    axes.grid(color=INK, alpha=0.12, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def curves(
    frame: pd.DataFrame,
    named: Collection[str],
    *,
    xlabel: str,
    ylabel: str,
    trained: float | None = None,
) -> Figure:
    """Draws the means over seeds of one measure against x, on a logarithmic axis.

    The schemes ``named`` have colours and bands, which are 95 % intervals over seeds; the others
    are thin lines. Their names are at the end of their line, unless they are too many. A line that
    grows too high leaves the drawing. ``trained`` is the x of training.
    """
    cells = means(frame).sort_values(["scheme", "x"])
    finite = cells[np.isfinite(cells["mean"])]
    low, median = finite["mean"].min(), finite["mean"].median()
    # The best point of every line is seen, and whatever is not far above most points.
    seen = max(finite.groupby("scheme")["mean"].min().max(), median + 3 * (median - low))
    high = min(seen, finite["mean"].max())
    room = 0.04 * (high - low) or 0.05
    low, high = low - room, high + room
    told = cells["scheme"].unique() if cells["scheme"].nunique() <= _MOST_NAMES else named
    height = max(3.6, 0.165 * len(told) + 0.8)
    figure = Figure(figsize=(5.6, height))
    axes = figure.add_axes((0.115, 0.62 / height, 0.6, 1 - 0.8 / height))
    styles, ends = styles_of(named), []
    for scheme, line in cells.groupby("scheme", sort=False):
        is_named = scheme in styles and scheme in named
        thin = dict(color=SOFT, linewidth=0.7, linestyle="-", alpha=0.8)
        axes.plot(line["x"], line["mean"], **(styles[scheme] if is_named else thin))
        if is_named:
            margin = line["margin"].fillna(0)
            band = line["mean"] - margin, line["mean"] + margin
            axes.fill_between(line["x"], *band, color=styles[scheme]["color"], alpha=0.2, lw=0)
        if scheme not in told:
            continue
        last = line["mean"].iloc[-1]
        words = scheme + (f" ↑ {number(last)}" if last > high else "")
        ends.append(((last - low) / (high - low), words, styles[scheme] if is_named else thin))
    axes.set_xscale("log", base=2)
    xs = sorted(cells["x"].unique())
    axes.set(xlim=(0.94 * xs[0], xs[-1]), ylim=(low, high), xlabel=xlabel, ylabel=ylabel)
    if len(xs) < 9:
        axes.set_xticks(xs, [f"{x:g}" for x in xs])
    axes.minorticks_off()
    if trained is not None:
        axes.axvline(trained, color=INK, linewidth=0.9, linestyle=":")
        axes.annotate(
            " trained length",
            (trained, 1),
            xycoords=("data", "axes fraction"),
            va="top",
            fontsize=7.5,
            color=SOFT,
        )
    _name_lines(axes, sorted(ends, key=lambda end: end[0]), gap=0.16 / (height - 0.8))
    finish(axes)
    return figure


def _name_lines(axes: Axes, ends: list[tuple[float, str, dict[str, Any]]], gap: float) -> None:
    """Writes the names of lines beside their ends, apart from each other, the lowest first."""
    # The heights that are closest to the ends by least squares, and ``gap`` apart.
    gaps = gap * np.arange(len(ends))
    lowest = scipy.optimize.isotonic_regression(np.minimum([end for end, *_ in ends], 2.0) - gaps).x
    heights = lowest.clip(0, max(1 - gaps[-1], 0)) + gaps
    for (end, words, line), y in zip(ends, heights, strict=True):
        where: dict[str, Any] = dict(transform=axes.transAxes, clip_on=False)
        if end <= 1:
            axes.plot((1, 1.04), (end, y), color=line["color"], linewidth=0.5, **where)
        axes.plot((1.04, 1.08), (y, y), **where, **line)
        axes.text(
            1.09, y, words, va="center", fontsize=8, parse_math=False, transform=where["transform"]
        )
