"""Draws what the probes of ``probes.py`` found in one trained model."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.results.drawing import COLOURS, INK, finish

# Logits are shown to this far below the best one, where a key has a millionth of its weight.
_LOWEST = 14.0
# Attention to a key is shown down to this share of the attention if all keys were alike.
_LEAST = 0.01


def draw(probes: Mapping[str, Any], train_length: int) -> Iterator[tuple[Figure, str, str]]:
    """Yields a figure, its title and its caption for each probe, see ``probes.probe``."""
    yield (
        _attention(probes["attention_by_distance"], train_length),
        "What the last token reads",
        "Attention of the last token of a training sequence to one key, by how many tokens back "
        "the key is; a line is a head, and the dotted line is attention to all keys alike. A line "
        "that is high at both ends is the U that HoPE (2410.21216) describes.",
    )
    yield (
        _offsets(probes["loss_by_offset"]),
        "Loss by position, at the trained length",
        "Change of the loss where the first token of a text is at another position than 0; no text "
        "is longer than in training. Bars are standard errors over texts, and an x is a loss that "
        "is not finite.",
    )
    if "kernel" in probes:
        yield (
            _kernel(probes["kernel"], train_length),
            "The kernel that was learned",
            "Logit by distance, where content is averaged out. A line is a head, 0 at its best "
            "distance within the trained length (dotted).",
        )


def _attention(numbers: dict[str, Any], train_length: int) -> Figure:
    figure, panels = _by_layer(numbers["weight"], "tokens back", "attention to one key")
    for axes, layer in panels:
        _heads(axes, numbers["distance"], numbers["weight"][layer] / numbers["keys"])
        axes.axhline(1 / train_length, color=INK, linewidth=0.9, linestyle=":")
        axes.set(yscale="log", xlim=(0, train_length - 1))
        axes.set_ylim(bottom=max(axes.get_ylim()[0], _LEAST / train_length))
    return figure


def _offsets(numbers: dict[str, Any]) -> Figure:
    figure = Figure(figsize=(5.6, 2.7), layout="constrained")
    axes = figure.add_subplot()
    # Evenly spaced, because most offsets are small beside the largest.
    place, change = np.arange(len(numbers["offset"])), numbers["change"]
    axes.errorbar(place, change, numbers["stderr"], color=COLOURS[0], marker="o", capsize=2)
    lost = place[~np.isfinite(change)]
    axes.plot(lost, np.zeros(len(lost)), "x", color=COLOURS[1], markersize=7)
    axes.set_xticks(place, list(map(str, numbers["offset"])), fontsize=8)
    axes.set(xlabel="position of the first token", ylabel="nats per token")
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, -0.05), max(high, 0.05))  # so that flat lines look flat
    finish(axes)
    return figure


def _kernel(numbers: dict[str, Any], train_length: int) -> Figure:
    distance = numbers["distance"]
    figure, panels = _by_layer(numbers["logit"], "distance", "logit")
    for axes, layer in panels:
        logits_HD, window = numbers["logit"][layer], numbers["window"][layer]
        shown = distance < (np.inf if window is None else window)
        best = np.nanmax(logits_HD[:, shown & (distance < train_length)], axis=1, keepdims=True)
        _heads(axes, distance[shown], (logits_HD - best)[:, shown])
        axes.axvline(train_length, color=INK, linewidth=0.9, linestyle=":")
        axes.set_xscale("log", base=2)
        low, high = axes.get_ylim()
        axes.set(xlim=(1, distance[-1]), ylim=(max(low, -_LOWEST), max(high, 0.5)))
    return figure


def _by_layer(layers, xlabel: str, ylabel: str) -> tuple[Figure, list[tuple[Axes, int]]]:
    """Returns a figure with axes for each layer that has results, and the layers' numbers."""
    present = [number for number, of_layer in enumerate(layers) if of_layer is not None]
    figure = Figure(figsize=(5.6, 2.0 * len(present) + 0.6), layout="constrained")
    panels = figure.subplots(len(present), 1, squeeze=False)[:, 0]
    for axes, number in zip(panels, present, strict=True):
        axes.set_title(f"layer {number + 1}", loc="left", fontsize=9)
        axes.set_ylabel(ylabel)
        finish(axes)
    panels[-1].set_xlabel(xlabel)
    return figure, list(zip(panels, present, strict=True))


def _heads(axes: Axes, x, values_HX: np.ndarray) -> None:
    for head, values in enumerate(values_HX):
        axes.plot(x, values, color=COLOURS[head % len(COLOURS)], linewidth=1.3)
