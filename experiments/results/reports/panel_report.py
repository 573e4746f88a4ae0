"""Reports an experiment on drawn examples, such as images or tasks: a page and its data."""

import base64
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import image
from rich.console import Console
from rich.text import Text

from experiments.results.panels import Panel, PanelStudy, best_means, cells, chances
from experiments.results.record import write_files
from experiments.results.reports import panel_figures
from experiments.results.reports.drawing import drawing_style, svg
from experiments.results.reports.page import (
    grid,
    page,
    print_failures,
    result_files,
    terminal_table,
    text,
)
from experiments.results.reports.templates import figure
from experiments.results.statistics import number, words
from posenc_jax.encodings.rotary.axes import is_matrix
from posenc_jax.encodings.rotary.rope import RoPE


def write(
    folder: Path,
    study: PanelStudy,
    pictures: Mapping[str, np.ndarray],
    encodings: Mapping[str, Any],
) -> Path:
    """Writes the report and its main figure into ``folder``; returns ``report.html``'s path.

    Args:
      folder: the folder of the report.
      study: all results.
      pictures: example inputs by caption, ``[height, width(, 3)]`` from 0 to 1.
      encodings: encodings by scheme; those that are rotary have their frequencies drawn.

    Raises:
      ValueError: the study is empty, or two records claim the same measurement.
    """
    study.check()
    measured = [panel for panel in study.panels if cells(study, panel)]
    with drawing_style():
        drawn = {"results.svg": svg(panel_figures.lines(study, measured))} if measured else {}
        parts = [*(_panel(study, panel) for panel in measured), *map(_results, drawn.values())]
        parts += [_pictures(pictures), *_maps(study), *_frequencies(study, encodings)]
    about = study.about
    data = "; ".join(f"{key}: <code>{text(value)}</code>" for key, value in about["data"].items())
    intro = f"{text(about['summary'])} Seeds: {study.seeds}. Data: {data}."
    html = page(about["title"], intro, study, parts)
    write_files(folder, result_files(study) | drawn | {"report.html": html})
    return folder / "report.html"


def print_tables(study: PanelStudy, console: Console) -> None:
    """Prints a table for each panel, best scheme first, and what failed."""
    print_failures(study.failures, console)
    for panel in study.panels:
        found, chance = cells(study, panel), chances(study, panel)
        if not found:
            continue
        title = f"{panel.title}, by {panel.xlabel}, mean ± standard error over seeds"
        table = terminal_table(title, panel.xs)
        for scheme in found:
            table.add_row(Text(scheme), *("".join(words(found, scheme, x)) for x in panel.xs))
        if chance:
            table.add_row(*["chance", *(_chance(chance, x) for x in panel.xs)], style="italic")
        console.print(table)
    console.print(study.about["rules"], highlight=False)


def _chance(chance, x) -> str:
    return number(chance[x]) if x in chance else "-"


def _panel(study: PanelStudy, panel: Panel) -> str:
    better = "Lower" if panel.is_error else "Higher"
    trained = f"; trained at {', '.join(map(str, panel.trained))}" if panel.trained else ""
    return (
        f"<h2>{text(panel.title)}</h2>{_table(study, panel)}<figcaption>By "
        f"{text(panel.xlabel)}{text(trained)}. {better} is better: mean ± standard error over "
        "seeds, best of a column in bold, best scheme of the last column first.</figcaption>"
    )


def _results(drawn: str) -> str:
    caption = "Bands: standard error. Dotted across: chance; dotted upright: as trained."
    return figure("results", "All schemes", caption, drawn)


def _table(study: PanelStudy, panel: Panel) -> str:
    found, chance = cells(study, panel), chances(study, panel)
    best = best_means(found, panel)
    rows: dict[str, list[str]] = {scheme: [] for scheme in found}
    for x in panel.xs:
        for scheme, row in found.items():
            mean, extra = words(found, scheme, x)
            if x in row and row[x][0] == best.get(x):
                mean = f"<b>{mean}</b>"
            rows[scheme].append(f"<td>{mean}<small>{extra}</small>")
    if chance:
        rows["chance"] = [f"<td>{_chance(chance, x)}" for x in panel.xs]
    return grid([f"<th>{text(x)}" for x in panel.xs], rows)


def _pictures(pictures: Mapping[str, np.ndarray]) -> str:
    """Returns the pictures as PNG inside the page, all of one height."""
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


def _maps(study: PanelStudy) -> Iterator[str]:
    if not study.maps:
        return
    caption = (
        "What one query reads of the grid, mean of all heads, seed 0; darker is more, on its own "
        "scale in each map. Orange: the query, where it is one of the grid."
    )
    drawn = svg(panel_figures.maps(study))
    yield figure("attention", "Attention over the grid", caption, drawn)


def _frequencies(study: PanelStudy, encodings: Mapping[str, Any]) -> Iterator[str]:
    count = len(study.about["axes"])
    spectra = {name: each for name, each in encodings.items() if _turns_by(each, count)}
    if not spectra:
        return
    caption = (
        "Each dot is a pair of channels: how far it needs to turn once, and along which axis. "
        "Schemes whose pairs turn by other numbers than these are left out."
    )
    drawn = svg(panel_figures.frequencies(study, spectra))
    yield figure("frequencies", "Frequencies by axis", caption, drawn)


def _turns_by(encoding, count: int) -> bool:
    """Returns whether each pair rotates by one of the first ``count`` axes, positions unchanged."""
    if type(encoding) is not RoPE or is_matrix(encoding.axes):
        return False
    return encoding.axes is None or int(np.max(encoding.axes)) < count
