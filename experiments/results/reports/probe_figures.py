"""Draws what the probes of ``experiments/evaluation/probes.py`` found in one trained model."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments.results.reports.drawing import COLOURS, INK, finish, page_style, svg

# Logits are shown to this far below the best one, where a key has a millionth of its weight.
_LOWEST = 14.0
# Attention to a key is shown down to this share of the attention if all keys were alike.
_LEAST = 0.01
# A pair is marked if its period is from half the training length to twice that, L / 2 .. 2 L.
_NEAR = 2.0


def draw(probes: dict[str, Any], train_length: int) -> dict[str, str]:
    """Returns the figures of what ``evaluation.probes.probe`` returns as SVG by name.

    A figure whose probe is missing is left out; ``train_length`` is L, tokens of a training
    sequence.
    """
    drawers = {"attention_by_distance": _attention, "variance_by_pair": _pairs}
    drawers |= {"loss_by_offset": _offsets, "kernel": _kernel}
    with page_style():
        return {
            name: svg(drawer(probes[name], train_length))
            for name, drawer in drawers.items()
            if name in probes
        }


def _attention(numbers: dict[str, Any], train_length: int) -> Figure:
    keys = np.array(numbers["keys"])
    figure, panels = _by_layer("tokens back", "attention to one key", numbers["weight"])
    for axes, weights in panels:
        _heads(axes, numbers["distance"], np.array(weights, float) / keys[None])
        axes.axhline(1 / train_length, color="#444444", linewidth=0.9, linestyle=":")
        axes.set(yscale="log", xlim=(0, train_length - 1))
        axes.set_ylim(bottom=max(axes.get_ylim()[0], _LEAST / train_length))
    return figure


def _pairs(numbers: dict[str, Any], train_length: int) -> Figure:
    layers = numbers["share"], numbers["period"]
    figure, panels = _by_layer("period of the pair", "share", *layers)
    finite = [period for *_, periods in panels for period in periods if period is not None]
    # The axis covers the marked periods even if no pair has one of them.
    low = min([*finite, train_length / _NEAR]) / train_length / 1.5
    high = max([*finite, train_length * _NEAR]) / train_length * 1.5
    still = high * (high / low) ** 0.08
    for axes, shares, periods in panels:
        rotates = np.array([period is not None for period in periods])
        x = np.array([period for period in periods if period is not None]) / train_length
        shares_HP, order = np.array(shares, float), x.argsort(kind="stable")
        _heads(axes, x[order], shares_HP[:, rotates][:, order], marker="o")
        if not rotates.all():
            for head, share in enumerate(shares_HP[:, ~rotates].sum(axis=1)):
                axes.plot(still, share, "s", color=_colour(head), markersize=4)
        is_near = (x >= 1 / _NEAR) & (x <= _NEAR)
        share = shares_HP[:, rotates][:, is_near].sum(axis=1).mean()
        title = f"{axes.get_title('left')}: {share:.0%} from L/2 to 2 L"
        axes.set_title(title, loc="left", fontsize=9)
        axes.axvspan(1 / _NEAR, _NEAR, color=INK, alpha=0.08, zorder=0)
        axes.axvline(1, color="#444444", linewidth=0.9, linestyle=":")
        axes.axhline(0, color="#444444", linewidth=0.6)
        axes.set_xscale("log")
        ticks = [(4.0**k, _times(4.0**k)) for k in range(-6, 12) if low <= 4.0**k <= high]
        _ticks(axes, [*ticks, (still, "still")] if not rotates.all() else ticks)
        axes.set_xlim(low, high if rotates.all() else still * (still / high))
    return figure


def _offsets(numbers: dict[str, Any], train_length: int) -> Figure:
    offsets, change = numbers["offset"], np.array(numbers["change"], float)
    errors = np.array(numbers["stderr"], float)
    figure = Figure(figsize=(4.6, 2.7), layout="constrained")
    axes = figure.add_subplot()
    # Evenly spaced, because random offsets may be close to multiples of the length.
    place = np.arange(len(offsets))
    axes.errorbar(
        place, change, errors, color=COLOURS[0], marker="o", markersize=4, capsize=2, linewidth=1.4
    )
    lost = place[~np.isfinite(change)]
    axes.plot(lost, np.zeros(len(lost)), "x", color=COLOURS[1], markersize=7)
    # A round position is shown as a part or a multiple of the training length.
    times = [offset / train_length for offset in offsets]
    names = [
        _times(t) if t in (0.25, 1, 4, 16) else str(offset)
        for t, offset in zip(times, offsets, strict=True)
    ]
    axes.set_xticks(place, names, fontsize=8)
    axes.set(xlabel="position of the first token", ylabel="nats per token")
    _limit(axes, np.nanmin(change - errors), np.nanmax(change + errors), least=0.1)
    finish(axes)
    axes.set_title(f"change from a loss of {numbers['loss'][0]:.3g}", loc="left", fontsize=9)
    return figure


def _kernel(numbers: dict[str, Any], train_length: int) -> Figure:
    distance = np.array(numbers["distance"])
    figure, panels = _by_layer("distance", "logit", numbers["logit"], numbers["window"])
    for axes, logits, window in panels:
        logits_HD = np.array(logits, float)
        shown = distance < (np.inf if window is None else window)
        logits_HD -= np.nanmax(logits_HD[:, shown & (distance < train_length)], axis=1)[:, None]
        _heads(axes, distance[shown], logits_HD[:, shown])
        axes.axvline(train_length, color="#444444", linewidth=0.9, linestyle=":")
        axes.set_xscale("log", base=2)
        powers = (2**k for k in range(0, 40, 2))
        _ticks(axes, [(power, str(power)) for power in powers if power <= distance[-1]])
        axes.set(xlim=(1, distance[-1]))
        visible_HD = logits_HD[:, shown]
        _limit(axes, max(np.nanmin(visible_HD), -_LOWEST), np.nanmax(visible_HD), least=1.0)
    return figure


def _by_layer(xlabel: str, ylabel: str, *layers: list) -> tuple[Figure, list[tuple[Any, ...]]]:
    """Returns a figure, and the axes and the data of each layer that has some.

    Each of ``layers`` has an entry for each layer; the first one has those of its heads, or None.
    """
    present = {n: of for n, of in enumerate(zip(*layers, strict=True), 1) if of[0] is not None}
    heads = len(next(iter(present.values()))[0])
    figure = Figure(figsize=(4.6, 2.0 * len(present) + 0.6), layout="constrained")
    panels = []
    for row, (number, of_layer) in enumerate(present.items(), 1):
        axes = figure.add_subplot(len(present), 1, row)
        axes.set_title(f"layer {number}", loc="left", fontsize=9)
        axes.set_ylabel(ylabel)
        finish(axes)
        panels.append((axes, *of_layer))
    axes.set_xlabel(xlabel)
    handles = [Line2D([], [], color=_colour(head)) for head in range(heads)]
    names = [f"head {head}" for head in range(1, heads + 1)]
    figure.legend(
        handles, names, loc="outside upper left", ncols=4, frameon=False, handlelength=1.2
    )
    return figure, panels


def _heads(axes: Axes, x, values_HX: np.ndarray, marker: str = "") -> None:
    for head, values in enumerate(values_HX):
        axes.plot(x, values, color=_colour(head), linewidth=1.3, marker=marker, markersize=3)


def _colour(head: int) -> str:
    return COLOURS[head % len(COLOURS)]


def _ticks(axes: Axes, ticks: list[tuple[float, str]]) -> None:
    """Sets the ticks of a logarithmic axis, each a place and its name."""
    axes.set_xticks([place for place, _ in ticks], [name for _, name in ticks])
    axes.minorticks_off()


def _limit(axes: Axes, low: float, high: float, least: float) -> None:
    """Shows ``low`` to ``high``, and a span of at least ``least``, so that flat lines look flat."""
    added = max(0.05 * (high - low), (least - (high - low)) / 2)
    axes.set_ylim(low - added, high + added)


def _times(times: float) -> str:
    """Returns ``times`` L in words; a number below 1 is one over a whole number."""
    if times < 1:
        return f"L/{1 / times:g}"
    return "L" if times == 1 else f"{times:g} L"
