"""Draws the figure of studies on drawn examples."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from experiments.results.drawing import INK, SOFT, finish, styles_of
from experiments.results.panels import Panel, X
from experiments.results.table import means, select


def drawn_panels(frame: pd.DataFrame, chances: Mapping[Panel, Sequence[float]]) -> Figure:
    """Draws a plot for each panel that has results, its columns evenly spaced.

    Bands are 95 % intervals over seeds. Dotted lines are the blind guess, ``chances``, and the
    conditions of training.
    """
    cells = {p: means(select(frame, split=p.condition, measure=p.metric)) for p in chances}
    cells = {panel: table for panel, table in cells.items() if len(table)}
    styles = styles_of(frame["scheme"].unique())
    columns = min(2 if len(cells) < 5 else 3, len(cells))
    rows = -(-len(cells) // columns)
    figure = Figure(figsize=(8.8, 3.3 * rows + 0.5), layout="constrained")
    lines = {}
    for place, (panel, table) in enumerate(cells.items(), 1):
        axes, names = figure.add_subplot(rows, columns, place), list(map(named, panel.xs))
        for scheme, line in table[np.isfinite(table["mean"])].groupby("scheme", sort=False):
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
