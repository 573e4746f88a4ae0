"""Draws what context is worth beyond a window, loss against recall, and loss by tokens.

All are drawn for a column as wide as a telephone, where their words can still be read.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from adjustText import adjust_text
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.results.atlas import family
from experiments.results.reports.drawing import COLOURS, INK, finish, svg
from posenc_jax import REGISTRY

# Bits per byte to either side of 0 that have as much room as a tenfold change beyond.
_LINEAR = 0.03
# Losses further above a scheme's own window are drawn at this height.
_HIGHEST = 1.0
# The drawing reaches this much further right of RoPE than the best scheme is left of it.
_WIDER = 1.5
_SIZE = (4.8, 4.7)
# How far names keep from each other and from dots, and how many times a better place is tried.
_ROOM: dict = dict(expand=(1.2, 1.6), force_text=(0.8, 1.4), max_move=20, iter_lim=800)
# The families of many schemes; all others have one colour.
_COLOURS = dict(zip(("rotary", "bias", "content", "patterns"), COLOURS, strict=False))
# Lines by tokens have nine colours and ten markers, so 90 schemes look different.
_LINES = (*COLOURS[:-1], "#8c510a", "#6a3dd8", "#f781bf")
_MARKERS = "s^Dv*PX<p>"


def beyond_window(points: pd.DataFrame, before: pd.DataFrame, named: Iterable[str]) -> str:
    """Draws the loss of each scheme above its own window against its loss through the window.

    ``points`` has by scheme, RoPE included, the bits per byte through a ``window`` of the trained
    length, and of the whole context ``above`` that. Arrows lead there from ``before``, the same
    after shorter training, which may be empty. The schemes ``named`` have their names written.
    """
    figure = Figure(figsize=_SIZE, layout="constrained")
    axes = figure.subplots()
    points, before = _from_rope(points), _from_rope(before)
    lowest = points["window"].min()
    room = max(-_WIDER * lowest, 0.05)
    places, starts = (
        table.assign(
            window=table["window"].clip(-room, room), above=table["above"].clip(upper=_HIGHEST)
        )
        for table in (points, before)
    )
    axes.axhline(0, color=INK, linewidth=0.8)
    axes.axvline(0, color=INK, linewidth=0.8)
    for scheme in starts.index.intersection(places.index):
        arrow = {"arrowstyle": "->", "color": _colour(scheme), "alpha": 0.5, "shrinkB": 3}
        axes.annotate("", places.loc[scheme], starts.loc[scheme], arrowprops=arrow)
    # Above one's own window by y, and below RoPE's by as much: the loss of RoPE's window.
    x = np.linspace(lowest, 0, 50)
    axes.plot(x, -x, color=INK, linewidth=0.9, linestyle=(0, (4, 2)))
    axes.set_yscale("symlog", linthresh=_LINEAR, linscale=1)
    # The names of the highest dots need room above them.
    axes.set_ylim(min(-_LINEAR / 2, 1.3 * places["above"].min()), _HIGHEST * 3)
    ticks = [t for t in (-0.1, -0.03, -0.01, 0, 0.01, 0.03, 0.1, 0.3, 1) if t >= axes.get_ylim()[0]]
    axes.set_yticks(ticks, [f"{tick:+g}" if tick else "0" for tick in ticks])
    axes.minorticks_off()
    axes.set(
        xlabel="bits per byte through a window of the trained length, less RoPE's",
        ylabel="bits per byte of the whole context, above the window's",
    )
    finish(axes)
    _draw(figure, axes, places["window"], places["above"], named)
    return svg(figure)


def _from_rope(points: pd.DataFrame) -> pd.DataFrame:
    """Returns points with RoPE's loss through its window subtracted; none without RoPE."""
    if "rope" not in points.index:
        return points.iloc[:0]
    return points.assign(window=points["window"] - points.loc["rope", "window"])


def _colour(scheme: str) -> str:
    """Returns the colour of a scheme's family; a variant or a scheme of a user's file has none."""
    return _COLOURS.get(family(scheme), INK) if scheme in REGISTRY else INK


def _draw(figure: Figure, axes: Axes, x: pd.Series, y: pd.Series, named: Iterable[str]) -> None:
    """Draws a dot for each scheme in the colour of its family, and writes names."""
    for name, colour in (_COLOURS | {"others": INK}).items():
        members = [scheme for scheme in x.index if _colour(scheme) == colour]
        if not members:
            continue
        dots = axes.scatter(x[members], y[members], color=colour, s=18, label=name, zorder=3)
        dots.set_urls([f"schemes/{scheme}.html" for scheme in members])
    above: dict[str, Any] = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0), "ncols": 6}
    axes.legend(frameon=False, fontsize=8, columnspacing=0.8, handletextpad=0.0, **above)
    figure.draw_without_rendering()  # so that the sizes of words are known
    names = [axes.text(x[n], y[n], n, fontsize=8.5, color=INK) for n in named if n in x.index]
    line = {"arrowstyle": "-", "color": "#8a8a8a", "linewidth": 0.6}
    adjust_text(names, x=x.tolist(), y=y.tolist(), ax=axes, arrowprops=line, **_ROOM)


def loss_and_recall(points: pd.DataFrame) -> str:
    """Draws the share of rows recalled against the loss of schemes, all of them named.

    ``points`` has by scheme the ``loss`` in bits per byte; ``recall``, a share; and ``learned``,
    whether the task was learned, without which dots are hollow.
    """
    figure = Figure(figsize=_SIZE, layout="constrained")
    axes = figure.subplots()
    axes.set(
        xlabel="bits per byte of the longest texts, lower is better",
        ylabel="share of rows recalled at 4x",
    )
    axes.set(ylim=(-0.04, 1.08), xmargin=0.1)
    finish(axes)
    _draw(figure, axes, points["loss"], points["recall"], points.index)
    hollow = points[~points["learned"]]
    axes.scatter(hollow["loss"], hollow["recall"], color="white", s=6, zorder=4)
    return svg(figure)


def by_tokens(curves: pd.DataFrame, crossings: Iterable[tuple[str, int, float]]) -> str:
    """Draws training losses less RoPE's, by tokens, with ``ladder.crossings`` as hollow circles."""
    figure = Figure(figsize=(4.8, 5.2), layout="constrained")
    axes = figure.subplots()
    above_rope = curves.sub(curves["rope"], axis=0)
    styles: dict[str, dict[str, Any]] = {"rope": dict(color=INK, linestyle="--", linewidth=1.5)}
    for i, scheme in enumerate(sorted(set(curves) - {"rope"})):
        colour, marker = _LINES[i % len(_LINES)], _MARKERS[i % len(_MARKERS)]
        # Markers begin at points that differ from scheme to scheme, and rarely cover each other.
        styles[scheme] = dict(color=colour, linewidth=1.3, marker=marker, markersize=5.5)
        styles[scheme] |= dict(markevery=(2 * i % 9, 9), markeredgewidth=0)
    for scheme, line in above_rope.items():
        axes.plot(line.index / 1e6, line, label=scheme, **styles[scheme])
    for scheme, tokens, _ in crossings:
        colour = styles[scheme]["color"]
        axes.plot(tokens / 1e6, 0, "o", color=colour, markerfacecolor="none", markersize=8)
    axes.set(xscale="log", xlabel="million tokens of training")
    axes.set_ylabel("training loss less RoPE's, in nats")
    # At first all losses are far apart.
    later = above_rope.iloc[len(above_rope) // 3 :].to_numpy()
    axes.set_ylim(later.min() - 0.02, min(later.max(), 0.4) + 0.02)
    figure.legend(frameon=False, fontsize=8, ncols=4, loc="outside lower center", columnspacing=1)
    finish(axes)
    return svg(figure)
