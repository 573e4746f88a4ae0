"""Draws what searches found: their losses by generation, and the factors of the best."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from experiments.results.drawing import COLOURS, INK, SOFT, finish


def drawn_searches(searches: Sequence[Mapping[str, Any]]) -> Figure:
    """Draws a row for each search of one seed, see ``Stages.searches``.

    At the left, dots are candidates, the line is the best so far, and the dashed line is the best
    starting point. At the right is the factor of each channel pair, of the best candidate and of
    the starting points (grey).
    """
    figure = Figure(figsize=(8.8, 2.4 * len(searches) + 0.2), layout="constrained")
    rows = figure.subplots(len(searches), 2, squeeze=False)
    for (left, right), search in zip(rows, searches, strict=True):
        losses = [np.array(generation) for generation in search["losses"]]
        best = np.minimum.accumulate([generation.min() for generation in losses])
        for count, generation in enumerate(losses):
            left.plot(np.full(len(generation), count), generation, ".", color=SOFT, markersize=3)
        left.plot(best, color=INK, linewidth=1.8)
        start = min(filter(math.isfinite, search["seeds"].values()), default=best[0])
        left.axhline(start, color=COLOURS[1], linestyle="--", linewidth=1.2)
        # The plot ends as far above the best starting point as the search came below it.
        high = max(best[0], start)
        margin = (high - best[-1]) or 0.01
        left.set(ylim=(best[-1] - 0.1 * margin, high + margin))
        left.set(xlabel="generation", ylabel="nats per token")
        left.xaxis.set_major_locator(MaxNLocator(integer=True))
        left.set_title(search["search"], loc="left", fontsize=10, parse_math=False)
        for factors in search["factors"].values():
            right.plot(factors, color=SOFT, linewidth=0.8)
        right.plot(search["found"]["genome"]["factors"], color=COLOURS[0], linewidth=1.8)
        right.set(xlabel="channel pair", ylabel="factor")
        right.set_yscale("log", base=2)
        right.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        finish(left)
        finish(right)
    return figure
