"""Makes the HTML page and the terminal table that the reports of all experiments share."""

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from markupsafe import Markup
from rich.box import HORIZONTALS
from rich.console import Console
from rich.table import Table
from rich.text import Text

from experiments.results.record import write_files
from experiments.results.reports.templates import FIGURES, document, fill, section
from experiments.results.statistics import (
    BASELINE,
    CELL,
    Record,
    Study,
    csv_of,
    failure_words,
    mean_and_margin,
    number,
    or_nan,
)


class GridCell(NamedTuple):
    """Holds a cell of a table in a page.

    Attributes:
      words: the number, or a word.
      small: what follows it in small letters.
      mark: a sign after it; empty keeps its place free, and None has no place.
      is_bold: whether the number is in bold.
      depth: how dark it is shaded, from 0 to 1.
      is_words: whether it is aligned as a text.
    """

    words: str
    small: str = ""
    mark: str | None = None
    is_bold: bool = False
    depth: float = 0.0
    is_words: bool = False

    @property
    def plain(self) -> str:
        """Returns the cell as one line of text."""
        return f"{self.words}{self.mark or ''}{self.small}"


def write_report(
    folder: Path,
    study: Study,
    template: str,
    title: str,
    data: Mapping[str, Any],
    files: Mapping[str, str],
    **values: Any,
) -> Path:
    """Writes ``report.html``, its data and ``files`` into ``folder``; returns the page's path.

    The page has an intro; what the ``data`` are, by name; the command, the runs that failed, parts,
    the cost of training, and the config. Intro and parts are blocks of the ``template``, which
    extends "report.html". ``results.csv`` has the records, and tells nan from inf; ``results.json``
    has everything, with null for a number that is not finite.
    """
    setup = {key: study.about[key] for key in ("config", "versions")}
    body = fill(
        template,
        title=title,
        data=data,
        about=study.about,
        seeds=study.seeds,
        failures=study.failures,
        holes=study.about.get("holes", ()),
        training=_training(study),
        rates=learning_rates(study.about.get("rates", {})),
        setup=json.dumps(setup, indent=2, default=str),
        **values,
    )
    columns = dict.fromkeys(key for record in study.records for key in record)
    python_json = json.dumps(dataclasses.asdict(study), default=str)
    everything = json.loads(python_json, parse_constant=lambda _: None)
    results = {
        "report.html": document(title, body),
        "results.csv": csv_of(study.records, columns),
        "results.json": json.dumps(everything, indent=1) + "\n",
    }
    write_files(folder, {**results, **files})
    return folder / "report.html"


def terminal_table(
    title: str, columns: Iterable, rows: Mapping[str, Iterable[GridCell]] | None = None
) -> Table:
    """Makes a table by scheme; in a narrow terminal errors go below means."""
    table = Table(title=title, box=HORIZONTALS, collapse_padding=True, pad_edge=False)
    table.add_column("scheme", no_wrap=True)
    for column in columns:
        # In a narrow terminal a long name is folded, for an ellipsis would make names alike.
        table.add_column(str(column), justify="right", overflow="fold")
    for scheme, cells in (rows or {}).items():
        texts = (cell.plain for cell in cells)
        table.add_row(Text(scheme, "italic" if scheme == BASELINE else ""), *texts)
    return table


def print_failures(failures: Iterable[Record], console: Console) -> None:
    """Prints a line for every run that failed."""
    for failure in failures:
        console.print(Text(failure_words(failure), "red"))


def grid(heads: Iterable[GridCell | str], rows: Mapping[str, Iterable[GridCell | str]]) -> Markup:
    """Returns a table with a row for each scheme."""

    def cells(row):
        return [cell if isinstance(cell, GridCell) else GridCell(cell) for cell in row]

    rows = {name: cells(row) for name, row in rows.items()}
    return Markup(fill("grid.html", heads=cells(heads), rows=rows, baseline=BASELINE))


def grid_cells(cells: pd.DataFrame, columns: Iterable[Any]) -> dict[str, list[GridCell]]:
    """Returns the means and margins of ``statistics.cells_of`` in words, by scheme.

    A cell says how many seeds it has if others have more.
    """
    most, shown, columns = cells["seeds"].max(), dict[str, dict[Any, GridCell]](), list(columns)
    for scheme, x, mean, margin, seeds in cells[CELL].itertuples(index=False):
        extra = f" ±{number(margin, mean)}" if math.isfinite(margin) else ""
        extra += f" ({seeds} of {most} seeds)" if seeds < most else ""
        shown.setdefault(scheme, {})[x] = GridCell(number(mean), extra)
    return {scheme: [row.get(x, GridCell("-")) for x in columns] for scheme, row in shown.items()}


def mean_cell(values: Iterable[float | None], digits: int) -> GridCell:
    """Returns a cell with the mean over seeds and half of its 95 % interval."""
    mean, margin, _ = mean_and_margin(map(or_nan, values))
    shown = f"{mean:,.{digits}f}" if mean < math.inf else "not finite"
    return GridCell(shown, f" ± {margin:,.{digits}f}" if margin > 0 else "")


def _training(study: Study) -> str:
    runs = [r for r in study.training if r["trained"] == r["scheme"]]
    runs = [r | {"tokens per second": r["tokens"] / r["seconds"]} for r in runs]
    digits = {"parameters": 0, "steps": 0, "tokens": 0, "seconds": 1, "final_loss": 3}
    digits["tokens per second"] = 0
    is_compared = any("speedup" in r for r in runs)
    rows = {}
    for scheme in sorted({r["scheme"] for r in runs}):
        of = [r for r in runs if r["scheme"] == scheme]
        cells = [mean_cell((r[key] for r in of), places) for key, places in digits.items()]
        rows[scheme] = [*cells, _speedup(of)] if is_compared else cells
    if not rows:
        return ""
    heads = [key.replace("_", " ") for key in digits] + ["effective speed-up"] * is_compared
    title, caption = FIGURES["training_cost"]
    if is_compared:
        caption += " " + FIGURES["speed_up"][1]
    return section(title, grid(heads, rows), caption)


def learning_rates(tried: Mapping[str, Mapping[float, float]]) -> str:
    """Returns the losses of schemes at all learning rates that were tried, the best in bold."""
    rates = sorted({rate for losses in tried.values() for rate in losses})
    rows = {
        scheme: [
            GridCell(number(losses[rate]), is_bold=losses[rate] == min(losses.values()))
            if losses[rate] < math.inf
            else "no result"
            for rate in rates
        ]
        for scheme, losses in sorted(tried.items())
    }
    if not rows:
        return ""
    title, caption = FIGURES["learning_rates"]
    return section(title, grid([f"{rate:g}" for rate in rates], rows), caption)


def _speedup(runs: list[Record]) -> GridCell:
    """Returns the mean speed-up of a scheme over its seeds, or a lower bound of it."""
    known = [r for r in runs if "speedup" in r]
    if not known:
        return GridCell("-")
    if any(r["speedup"] is None for r in known):
        least = min(r["speedup_above" if r["speedup"] is None else "speedup"] for r in known)
        return GridCell(f"> {least:.2f}")
    return mean_cell((r["speedup"] for r in known), 2)
