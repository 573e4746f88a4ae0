"""Reports an experiment on drawn examples, such as images or tasks: a page and its data."""

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib import image
from matplotlib.figure import Figure
from rich.console import Console

from experiments.results.panels import Panel, PanelStudy, cells, chances
from experiments.results.reports import page
from experiments.results.reports.drawing import (
    COLOURS,
    drawing_style,
    finish,
    line_with_band,
    styles_of,
    svg,
)
from experiments.results.statistics import number


def write(folder: Path, study: PanelStudy, pictures: Mapping[str, np.ndarray]) -> Path:
    """Writes the report and its main figure into ``folder``; returns ``report.html``'s path.

    ``pictures`` are example inputs by caption, ``[height, width(, 3)]`` from 0 to 1. Raises a
    ValueError if two records claim the same measurement.
    """
    measured = [panel for panel in study.panels if len(cells(study, panel))]
    with drawing_style():
        drawn = {"results": svg(_lines(study, measured))} if measured else {}
        attention = {"attention": svg(_attention(study))} if study.maps else {}
    return page.write_report(
        folder,
        study,
        "panel.html",
        study.about["title"],
        study.about["data"],
        {f"{name}.svg": drawing for name, drawing in drawn.items()},
        tables=[(panel, _table(study, panel)) for panel in measured],
        drawn=drawn,
        pictures={caption: _png(pixels) for caption, pixels in pictures.items()},
        attention=attention,
    )


def print_tables(study: PanelStudy, console: Console) -> None:
    """Prints a table for each panel, best scheme first, and what failed."""
    page.print_failures(study.failures, console)
    for panel in study.panels:
        if by_scheme := rows(study, panel):
            title = f"{panel.title}, by {panel.xlabel}, mean ± half of its 95 % interval over seeds"
            table = page.terminal_table(title, panel.xs, by_scheme)
            if chance := _chances(study, panel):
                table.add_row("chance", *(cell.plain for cell in chance), style="italic")
            console.print(table)
    console.print(study.about["rules"], highlight=False)


def rows(study: PanelStudy, panel: Panel) -> dict[str, list[page.GridCell]]:
    """Returns the cells of a panel by scheme, the best scheme of the last column first."""
    return page.grid_cells(cells(study, panel), panel.xs)


def _chances(study: PanelStudy, panel: Panel) -> list[page.GridCell]:
    """Returns the value of a blind guess in each column, or nothing if none is known."""
    known = chances(study, panel)
    return (
        [page.GridCell(number(known[x]) if x in known else "-") for x in panel.xs] if known else []
    )


def _table(study: PanelStudy, panel: Panel) -> Markup:
    """Returns the table of a panel, with a last row of blind guesses if they are known."""
    chance = _chances(study, panel)
    last = {"chance": chance} if chance else {}
    return page.grid(map(str, panel.xs), rows(study, panel) | last)


def _png(pixels: np.ndarray) -> str:
    """Returns a picture as PNG, in Base64."""
    data = io.BytesIO()
    colour = pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=-1)
    image.imsave(data, np.clip(colour, 0, 1), format="png")
    return base64.b64encode(data.getvalue()).decode()


def _lines(study: PanelStudy, panels: list[Panel]) -> Figure:
    """Draws a plot for each panel, its columns evenly spaced."""
    styles = styles_of({r["scheme"] for r in study.records})
    columns = min(2 if len(panels) < 5 else 3, len(panels))
    rows = -(-len(panels) // columns)
    drawing = Figure(figsize=(8.8, 3.3 * rows + 0.5), layout="constrained")
    drawn = {}
    for count, panel in enumerate(panels, 1):
        axes = drawing.add_subplot(rows, columns, count)
        place = {x: i for i, x in enumerate(panel.xs)}
        table = cells(study, panel)
        for scheme, row in table[np.isfinite(table["mean"])].groupby("scheme", sort=False):
            row = row.assign(place=row["x"].map(place)).sort_values("place")
            style = styles[scheme] | {"marker": "o", "markersize": 3}
            drawn[scheme] = line_with_band(axes, row["place"], row, **style)
        chance = {place[x]: value for x, value in chances(study, panel).items()}
        axes.plot(*zip(*sorted(chance.items()), strict=True) if chance else ((), ()), ":k")
        for x in panel.trained:
            axes.axvline(place[x], color="#444444", linewidth=0.9, linestyle=":")
        axes.set_xticks(range(len(panel.xs)), [str(x) for x in panel.xs])
        axes.set(xlabel=panel.xlabel, ylabel=panel.metric)
        axes.set_title(panel.condition, loc="left", fontsize=10, parse_math=False)
        finish(axes)
    names = sorted(drawn)
    # A handle is long enough for every dash.
    look: dict[str, Any] = {"ncols": 4, "handlelength": 3.4, "frameon": False}
    drawing.legend([drawn[name] for name in names], names, loc="outside upper left", **look)
    return drawing


def _attention(study: PanelStudy) -> Figure:
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
