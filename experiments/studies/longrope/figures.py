"""Draws the figures of LongRoPE's report."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from experiments.results.reports.drawing import COLOURS, finish, styles_of
from experiments.results.statistics import number

if TYPE_CHECKING:
    from experiments.studies.longrope.report import SearchStudy


def draw(study: SearchStudy) -> dict[str, Figure]:
    """Returns the figures by name; one without data is left out."""
    if not study.searches:
        return {}
    return {"searches": _searches(study), "factors": _factors(study)}


def _searches(study: SearchStudy) -> Figure:
    """Draws a plot for each search of the first seed."""
    first = min(search["seed"] for search in study.searches)
    searches = [search for search in study.searches if search["seed"] == first]
    columns = min(2, len(searches))
    rows = -(-len(searches) // columns)
    drawing = Figure(figsize=(8.8, 3.2 * rows + 0.2), layout="constrained")
    for place, search in enumerate(searches, 1):
        _search(drawing.add_subplot(rows, columns, place), search)
    return drawing


def _search(axes: Axes, search: dict[str, Any]) -> None:
    """Draws the losses of one search by generation."""
    losses = [np.array(generation) for generation in search["losses"]]
    best = np.minimum.accumulate([generation.min() for generation in losses])
    for count, generation in enumerate(losses):
        axes.plot(np.full(len(generation), count), generation, ".", color="#bbbbbb", markersize=3)
    axes.plot(best, color="#222222", linewidth=1.8, label="best so far")
    # Only the best three starting points are drawn.
    starts = {name: loss for name, loss in search["seeds"].items() if math.isfinite(loss)}
    shown = sorted(starts, key=starts.__getitem__)[:3]
    styles = styles_of(shown)
    for name in shown:
        label = f"{name}, {number(starts[name])}"
        axes.axhline(starts[name], **styles[name] | {"linewidth": 1.2}, label=label)
    # The plot ends as far above the best starting point as the search came below it.
    high = max(best[0], min(starts.values(), default=best[0]))
    margin = (high - best[-1]) or 0.01
    axes.set(ylim=(best[-1] - 0.1 * margin, high + margin))
    axes.set(xlabel="generation", ylabel="nats a token")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_title(search["search"], loc="left", fontsize=10, parse_math=False)
    axes.legend(fontsize=7.5, framealpha=0.8, edgecolor="none")
    finish(axes)


def _factors(study: SearchStudy) -> Figure:
    """Draws a plot of factors by pair for each length that searches were made for."""
    by_length = {"near": ("longrope", "released", "longrope2"), "far": ("progressive",)}
    shown = {
        title: [search for search in study.searches if search["search"] in by_length.get(group, ())]
        for group, title in study.groups.items()
    }
    shown = {title: searches for title, searches in shown.items() if searches}
    drawing = Figure(figsize=(8.8, 3.8), layout="constrained")
    for place, (title, searches) in enumerate(shown.items(), 1):
        axes = drawing.add_subplot(1, len(shown), place)
        _curves(axes, searches)
        axes.set(xlabel="channel pair", ylabel="factor")
        axes.set_yscale("log", base=2)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.set_title(title, loc="left", fontsize=9, parse_math=False)
        axes.legend(fontsize=7.5, framealpha=0.8, edgecolor="none")
        finish(axes)
    return drawing


def _curves(axes: Axes, searches: list[dict[str, Any]]) -> None:
    """Draws the factors of known methods in grey, and the results of searches in colours."""
    known = {name: line for search in searches for name, line in search["factors"].items()}
    for name, dash in zip(("pi", "ntk", "yarn"), ("--", ":", "-."), strict=True):
        if name in known:
            axes.plot(known[name], dash, color="#777777", linewidth=1.4, label=name)
    names = list(dict.fromkeys(search["search"] for search in searches))
    for search in searches:
        genome, is_first = search["found"]["genome"], search["seed"] == searches[0]["seed"]
        label = search["search"]
        if genome["start_tokens"]:
            label += f" (first {genome['start_tokens']} tokens as in RoPE)"
        axes.plot(
            genome["factors"],
            color=COLOURS[names.index(search["search"])],
            linewidth=1.8 if is_first else 0.9,
            label=label if is_first else None,
        )
