"""The report of a multimodal experiment: ``report.html``, ``results.csv`` and ``results.json``."""

import base64
import io
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import image
from matplotlib.figure import Figure
from rich.console import Console
from rich.text import Text

from experiments.figures import COLOURS, drawing_style, styles_of, svg
from experiments.multimodal.study import Panel, Study, cells, chances
from experiments.record import write_files
from experiments.report import figure, grid, page, result_files, terminal_table, text
from experiments.study import number
from posenc_jax.encodings.rope import RoPE


def write(
    folder: Path, study: Study, pictures: dict[str, np.ndarray], encodings: dict[str, Any]
) -> Path:
    """Writes the report into ``folder`` and returns the path of ``report.html``.

    Args:
      folder: where to.
      study: all results.
      pictures: example inputs by caption, ``[height, width(, 3)]`` from 0 to 1.
      encodings: by scheme, for their frequencies; those without are left out.

    Raises:
      ValueError: the study is empty, or two records claim the same measurement.
    """
    if not study.records and not study.failures:
        raise ValueError("the study has no records and no failures: there is nothing to report")
    with drawing_style():
        parts = [*_panels(study), _pictures(pictures), *_maps(study)]
        parts += _frequencies(study, encodings)
    about = study.about
    seeds = ", ".join(map(str, sorted({r["seed"] for r in study.records}))) or "none"
    data = "; ".join(f"{key}: <code>{text(value)}</code>" for key, value in about["data"].items())
    intro = f"{text(about['summary'])} Seeds: {seeds}. Data: {data}."
    html = page(text(about["title"]), intro, study, parts)
    write_files(Path(folder), result_files(study) | {"report.html": html})
    return Path(folder) / "report.html"


def tiles(frames, columns: int) -> np.ndarray:
    """Frames ``[F, side, side]`` from 0 to 1 as one picture, in rows, with white lines between."""
    framed = np.pad(frames, ((0, -len(frames) % columns), (1, 1), (1, 1)), constant_values=1)
    side = framed.shape[-1]
    return framed.reshape(-1, columns, side, side).swapaxes(1, 2).reshape(-1, columns * side)


def print_tables(study: Study, console: Console) -> None:
    """Prints a table for each panel, best scheme first, and what failed."""
    for failure in study.failures:
        console.print(Text("failed: {scheme}, seed {seed}: {reason}".format(**failure), "red"))
    for panel in study.panels:
        found, chance = cells(study, panel), chances(study, panel)
        if not found:
            continue
        title = f"{_title(panel)}, by {panel.xlabel}, mean ± standard error over seeds"
        table = terminal_table(title, panel.xs)
        for scheme, row in found.items():
            words = [_words(found, row, x) for x in panel.xs]
            table.add_row(Text(scheme), *(mean + extra for mean, extra in words))
        if chance:
            table.add_row(*["chance", *(_chance(chance, x) for x in panel.xs)], style="italic")
        console.print(table)


def _title(panel: Panel) -> str:
    return f"{panel.condition}: {panel.metric}"


def _words(found, row, x) -> tuple[str, str]:
    if x not in row:
        return "-", ""
    mean, stderr, seeds = row[x]
    most = max(cell[2] for each in found.values() for cell in each.values())
    extra = f" ±{number(stderr, mean)}" if stderr is not None else ""
    return number(mean), extra + (f" ({seeds} of {most} seeds)" if seeds < most else "")


def _chance(chance, x) -> str:
    return number(chance[x]) if x in chance else "-"


def _panels(study: Study) -> Iterator[str]:
    measured = [panel for panel in study.panels if cells(study, panel)]
    for panel in measured:
        better = "Lower" if panel.is_error else "Higher"
        trained = f"; trained at {', '.join(map(str, panel.trained))}" if panel.trained else ""
        yield (
            f"<h2>{text(_title(panel))}</h2>{_table(study, panel)}<figcaption>By "
            f"{text(panel.xlabel)}{text(trained)}. {better} is better: mean ± standard error over "
            "seeds, best of a column in bold, best scheme of the last column first.</figcaption>"
        )
    if measured:
        caption = "Bands: standard error. Dotted across: chance; dotted upright: as trained."
        yield figure("results", "All schemes", caption, svg(_lines(study, measured)))


def _table(study, panel) -> str:
    found, chance = cells(study, panel), chances(study, panel)
    best = min if panel.is_error else max
    rows: dict[str, list[str]] = {scheme: [] for scheme in found}
    for x in panel.xs:
        finite = [row[x][0] for row in found.values() if x in row and row[x][0] < math.inf]
        for scheme, row in found.items():
            mean, extra = _words(found, row, x)
            if finite and x in row and row[x][0] == best(finite):
                mean = f"<b>{mean}</b>"
            rows[scheme].append(f"<td>{mean}<small>{extra}</small>")
    if chance:
        rows["chance"] = [f"<td>{_chance(chance, x)}" for x in panel.xs]
    return grid([f"<th>{text(x)}" for x in panel.xs], rows)


def _lines(study: Study, panels: list[Panel]) -> Figure:
    """A plot for each panel, its columns evenly spaced."""
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
        axes.grid(color="#e4e4e4", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
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


def _pictures(pictures: dict[str, np.ndarray]) -> str:
    """Each as PNG inside the page, as large as the widest."""
    shown = []
    for caption, pixels in pictures.items():
        data = io.BytesIO()
        colour = pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=-1)
        image.imsave(data, np.clip(colour, 0, 1), format="png")
        source = base64.b64encode(data.getvalue()).decode()
        shown.append(
            "<figure style='display:inline-block;margin:.4rem .8rem .4rem 0'>"
            f"<img alt='{text(caption)}' style='height:170px;image-rendering:pixelated;"
            f"border:1px solid #ddd' src='data:image/png;base64,{source}'>"
            f"<figcaption>{text(caption)}</figcaption></figure>"
        )
    return f"<h2>Inputs</h2>{''.join(shown)}" if shown else ""


def _maps(study: Study) -> Iterator[str]:
    if not study.maps:
        return
    schemes = list(dict.fromkeys(each["scheme"] for each in study.maps))
    captions = list(dict.fromkeys(each["caption"] for each in study.maps))
    side = min(1.5, 7.6 / len(captions))
    drawing = Figure(figsize=(8.8, side * len(schemes) + 0.5), layout="constrained")
    panels = drawing.subplots(len(schemes), len(captions), squeeze=False)
    for row, scheme in zip(panels, schemes, strict=True):
        row[0].set_ylabel(scheme, parse_math=False)
    for axes, caption in zip(panels[0], captions, strict=True):
        axes.set_title(caption, fontsize=8, parse_math=False)
    for axes in panels.flat:
        axes.set(xticks=[], yticks=[])
    for each in study.maps:
        axes = panels[schemes.index(each["scheme"])][captions.index(each["caption"])]
        axes.imshow(each["weights"], vmin=0, cmap="Blues", interpolation="nearest")
        if each["query"]:
            row, column = each["query"]
            axes.plot(column, row, "s", markerfacecolor="none", color=COLOURS[1], markersize=5)
    caption = (
        "What one query reads of the grid, mean of all heads, seed 0; darker is more, on its own "
        "scale in each map. Orange: the query, where it is one of the grid."
    )
    yield figure("attention", "Attention over the grid", caption, svg(drawing))


def _frequencies(study: Study, encodings: dict[str, Any]) -> Iterator[str]:
    """The wavelength of every rotary pair, by the axis that turns it."""
    spectra = {name: encoding for name, encoding in encodings.items() if isinstance(encoding, RoPE)}
    if not spectra:
        return
    names = study.about["axes"]
    drawing = Figure(figsize=(8.8, 0.55 * len(spectra) + 1.3), layout="constrained")
    axes = drawing.add_subplot()
    for place, encoding in enumerate(spectra.values()):
        inv_freq, _ = encoding.frequencies(encoding.rotary_dim, encoding.base, 1)
        inv_freq = np.asarray(inv_freq).reshape(-1)
        allocation = np.atleast_2d(0 if encoding.axes is None else encoding.axes)
        for axis in range(len(names)):
            # Heads with axes of their own have the whole spectrum each.
            turns = (allocation == axis).any(axis=0) & (inv_freq > 0)
            wavelengths = 2 * math.pi / inv_freq[turns]
            height = np.full(len(wavelengths), place + 0.22 * (axis - (len(names) - 1) / 2))
            axes.plot(wavelengths, height, "o", color=COLOURS[axis], markersize=4)
    for axis, name in enumerate(names):
        axes.plot([], [], "o", color=COLOURS[axis], label=name)
    axes.set_yticks(range(len(spectra)), list(spectra))
    axes.set(xlabel="positions in one turn", xscale="log", ylim=(len(spectra) - 0.5, -0.5))
    axes.grid(axis="x", color="#e4e4e4", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    drawing.legend(loc="outside upper left", ncols=len(names), frameon=False)
    caption = "Each dot is a pair of channels: how far it needs to turn once, and along which axis."
    yield figure("frequencies", "Frequencies by axis", caption, svg(drawing))
