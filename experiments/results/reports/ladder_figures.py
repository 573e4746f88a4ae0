"""Draws the figures of the ladder, as SVG."""

from collections.abc import Mapping, Sequence

import pandas as pd
from adjustText import adjust_text
from matplotlib.figure import Figure

from experiments.results.ladder import BEYOND, CUT, ROPE, crossings, losses
from experiments.results.reports.drawing import COLOURS, finish, styles_of, svg

# Losses so far above a scheme's own window are all drawn at the upper end.
_HIGHEST = 0.5


def beyond_window(records: pd.DataFrame, rungs: Sequence[str]) -> str:
    """Draws what context beyond the window is worth: each scheme's loss above its own window.

    Args:
      records: the table of ``results/ladder.py``.
      rungs: the rung after short training and the one after long training, which an arrow joins,
        or one rung.
    """
    points = [_points(records, rung) for rung in rungs]
    last = points[-1]
    figure = Figure(figsize=(7.5, 5.2), layout="constrained")
    axes = figure.subplots()
    axes.axhline(0, color=COLOURS[6], linewidth=1)
    if ROPE in last.index:
        axes.axvline(last.loc[ROPE, "window"], color=COLOURS[6], linewidth=1)
    for scheme, first in points[0].iterrows():
        if len(points) > 1 and scheme in last.index:
            end = last.loc[scheme]
            axes.annotate(
                "",
                (end["window"], min(end["above"], _HIGHEST)),
                (first["window"], min(first["above"], _HIGHEST)),
                arrowprops={"arrowstyle": "->", "color": "#9a9a9a", "linewidth": 0.9},
            )
    height = last["above"].clip(upper=_HIGHEST)
    axes.scatter(last["window"], height, color=COLOURS[0], zorder=3, s=18)
    labels = [axes.text(last.loc[s, "window"], height[s], s, fontsize=8) for s in last.index]
    adjust_text(labels, ax=axes, arrowprops={"arrowstyle": "-", "color": "#9a9a9a"})
    axes.set_xlabel("bits per byte through a window of the trained length (lower is better)")
    axes.set_ylabel("bits per byte of the whole context, above that (below 0: context helps)")
    finish(axes)
    return svg(figure)


def _points(records: pd.DataFrame, rung: str) -> pd.DataFrame:
    """Returns, by scheme, the loss through the scheme's own window, and the whole one above it."""
    whole, window = (
        losses(records, rung, protocol).groupby("scheme")["value"].mean()
        for protocol in (BEYOND, CUT)
    )
    return pd.DataFrame({"window": window, "above": whole - window}).dropna()


def by_tokens(curves: Mapping[str, list[tuple[int, float]]]) -> str:
    """Draws training losses less RoPE's, by tokens, and marks where they cross it last."""
    figure = Figure(figsize=(7.5, 4.4), layout="constrained")
    axes = figure.subplots()
    styles, line = styles_of(curves), dict(curves[ROPE])
    for scheme, curve in curves.items():
        x = [tokens / 1e6 for tokens, _ in curve]
        axes.plot(x, [loss - line[n] for n, loss in curve], label=scheme, **styles[scheme])
    for scheme, tokens, _ in crossings(curves):
        axes.plot(tokens / 1e6, 0, "o", color=styles[scheme]["color"], markersize=5)
    axes.set_xscale("log")
    axes.set_xlabel("million tokens of training (circles: the last time that RoPE is crossed)")
    axes.set_ylabel("training loss less RoPE's, in nats")
    spread = [loss - line[n] for curve in curves.values() for n, loss in curve[len(curve) // 5 :]]
    axes.set_ylim(min(spread) - 0.02, min(max(spread), 0.4) + 0.02)
    axes.legend(fontsize=7, ncols=2, loc="upper left", bbox_to_anchor=(1, 1))
    finish(axes)
    return svg(figure)
