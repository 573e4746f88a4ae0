"""Draws the figures of an experiment on drawn examples, such as images or tasks."""

import math
from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from experiments.results.panels import Panel, PanelStudy, cells, chances
from experiments.results.reports.drawing import COLOURS, finish, styles_of
from posenc_jax.encodings.rotary.rope import RoPE


def lines(study: PanelStudy, panels: list[Panel]) -> Figure:
    """Draws a plot for each panel, its columns evenly spaced."""
    styles = styles_of({r["scheme"] for r in study.records})
    columns = min(2 if len(panels) < 5 else 3, len(panels))
    rows = -(-len(panels) // columns)
    drawing = Figure(figsize=(8.8, 3.3 * rows + 0.5), layout="constrained")
    drawn = {}
    for count, panel in enumerate(panels, 1):
        axes = drawing.add_subplot(rows, columns, count)
        place = {x: i for i, x in enumerate(panel.xs)}
        for scheme, row in cells(study, panel).items():
            finite = {place[x]: cell for x, cell in row.items() if cell[0] < math.inf}
            xs, means = list(finite), np.array([mean for mean, _, _ in finite.values()])
            errors = np.array([stderr or 0 for _, stderr, _ in finite.values()])
            (drawn[scheme],) = axes.plot(xs, means, **styles[scheme], marker="o", markersize=3)
            colour = styles[scheme]["color"]
            band = means - errors, means + errors
            axes.fill_between(xs, *band, color=colour, alpha=0.18, linewidth=0)
        chance = {place[x]: value for x, value in chances(study, panel).items()}
        axes.plot(*zip(*sorted(chance.items()), strict=True) if chance else ((), ()), ":k")
        for x in panel.trained:
            axes.axvline(place[x], color="#444444", linewidth=0.9, linestyle=":")
        axes.set_xticks(range(len(panel.xs)), [str(x) for x in panel.xs])
        axes.set(xlabel=panel.xlabel, ylabel=panel.metric)
        axes.set_title(panel.condition, loc="left", fontsize=10, parse_math=False)
        finish(axes)
    names = sorted(drawn)
    drawing.legend(
        [drawn[name] for name in names],
        names,
        loc="outside upper left",
        ncols=4,
        handlelength=3.4,  # long enough for every dash
        frameon=False,
    )
    return drawing


def maps(study: PanelStudy) -> Figure:
    """Draws the attention of one query: a row for each scheme, a column for each caption."""
    schemes = list(dict.fromkeys(record["scheme"] for record in study.maps))
    captions = list(dict.fromkeys(record["caption"] for record in study.maps))
    side = min(1.5, 7.6 / len(captions))
    drawing = Figure(figsize=(8.8, side * len(schemes) + 0.5), layout="constrained")
    panels = drawing.subplots(len(schemes), len(captions), squeeze=False)
    for row, scheme in zip(panels, schemes, strict=True):
        row[0].set_ylabel(scheme, parse_math=False)
    for axes, caption in zip(panels[0], captions, strict=True):
        axes.set_title(caption, fontsize=8, parse_math=False)
    for axes in panels.flat:
        axes.set(xticks=[], yticks=[])
    for record in study.maps:
        axes = panels[schemes.index(record["scheme"])][captions.index(record["caption"])]
        axes.imshow(record["weights"], vmin=0, cmap="Blues", interpolation="nearest")
        if record["query"]:
            row, column = record["query"]
            axes.plot(column, row, "s", markerfacecolor="none", color=COLOURS[1], markersize=5)
    return drawing


def frequencies(study: PanelStudy, spectra: Mapping[str, RoPE]) -> Figure:
    """Draws the wavelength of every rotary pair, by the axis that rotates it."""
    names = study.about["axes"]
    drawing = Figure(figsize=(8.8, 0.55 * len(spectra) + 1.3), layout="constrained")
    axes = drawing.add_subplot()
    for place, encoding in enumerate(spectra.values()):
        inv_freq, _ = encoding.frequencies(encoding.rotary_dim, encoding.base, 1)
        inv_freq = np.asarray(inv_freq).reshape(-1)
        allocation = np.atleast_2d(0 if encoding.axes is None else encoding.axes)
        for axis in range(len(names)):
            # If heads have axes of their own, each head has the whole spectrum.
            turns = (allocation == axis).any(axis=0) & (inv_freq > 0)
            wavelengths = 2 * math.pi / inv_freq[turns]
            height = np.full(len(wavelengths), place + 0.22 * (axis - (len(names) - 1) / 2))
            axes.plot(wavelengths, height, "o", color=COLOURS[axis], markersize=4)
    for axis, name in enumerate(names):
        axes.plot([], [], "o", color=COLOURS[axis], label=name)
    axes.set_yticks(range(len(spectra)), list(spectra))
    axes.set(xlabel="positions in one turn", xscale="log", ylim=(len(spectra) - 0.5, -0.5))
    finish(axes, axis="x")
    drawing.legend(loc="outside upper left", ncols=len(names), frameon=False)
    return drawing
