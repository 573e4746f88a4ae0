"""Reports whether each LongRoPE search beat its starting points, on documents it never read."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from rich.console import Console

from experiments.results.reports import page
from experiments.results.reports.drawing import COLOURS, drawing_style, finish, styles_of, svg
from experiments.results.searches import SearchStudy, verdicts
from experiments.results.statistics import best_first, by_seed, cells_of, number


def write(folder: Path, study: SearchStudy) -> Path:
    """Writes the report and its figures into ``folder``; returns ``report.html``'s path."""
    with drawing_style():
        drawn = {name: svg(drawing) for name, drawing in _draw(study).items()}
    about, heads = study.about, study.columns().values()
    return page.write_report(
        folder,
        study,
        "search.html",
        "LongRoPE: searched factors",
        {"Corpus": about["corpus"], "digest": about["corpus_digest"], "model": about["source"]},
        {f"{n}.svg": drawing for n, drawing in drawn.items()},
        verdicts=list(map(str, verdicts(study))),
        tables={
            title: page.grid(heads, _cells(study, name)) for name, title in study.groups.items()
        },
        drawn=drawn,
        tuning=_tuning(study),
    )


def print_tables(study: SearchStudy, console: Console) -> None:
    """Prints a table for each length, the verdicts, and what failed."""
    page.print_failures(study.failures, console)
    for group, title in study.groups.items():
        heads = study.columns().values()
        console.print(page.terminal_table(f"{title}: nats per token", heads, _cells(study, group)))
    for verdict in verdicts(study):
        console.print(str(verdict), highlight=False)


def _cells(study: SearchStudy, group: str) -> dict[str, list[page.GridCell]]:
    """Returns the cells of a table by scheme, the smallest loss first."""
    records, metrics = [r for r in study.records if r["group"] == group], study.columns()
    long = [r | {"metric": metric, "value": r[metric]} for r in records for metric in metrics]
    cells = cells_of(by_seed(long, "metric", "value", group))
    return page.grid_cells(best_first(cells, "loss"), metrics)


def _tuning(study: SearchStudy) -> Markup | str:
    """Returns the table of what fine-tuning cost, or "" without any."""
    if not study.tuning:
        return ""
    digits = {"steps": 0, "tokens": 0, "seconds": 1, "final_loss": 3}
    rows = {
        str(name): [page.mean_cell(costs[key].tolist(), n) for key, n in digits.items()]
        for name, costs in pd.DataFrame(study.tuning).groupby("name", sort=False)
    }
    return page.grid([key.replace("_", " ") for key in digits], rows)


def _draw(study: SearchStudy) -> dict[str, Figure]:
    """Returns the figures by name: the searches of the first seed, and factors; or none."""
    if not study.searches:
        return {}
    first = min(search["seed"] for search in study.searches)
    searches = [search for search in study.searches if search["seed"] == first]
    columns = min(2, len(searches))
    rows = -(-len(searches) // columns)
    drawing = Figure(figsize=(8.8, 3.2 * rows + 0.2), layout="constrained")
    for place, search in enumerate(searches, 1):
        _search(drawing.add_subplot(rows, columns, place), search)
    return {"searches": drawing, "factors": _factors(study)}


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
    axes.set(xlabel="generation", ylabel="nats per token")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_title(search["search"], loc="left", fontsize=10, parse_math=False)
    axes.legend(fontsize=7.5, framealpha=0.8, edgecolor="none")
    finish(axes)


def _factors(study: SearchStudy) -> Figure:
    """Draws a plot of factors by pair for each length that searches were made for."""
    by_length = {"near": ("longrope", "released", "longrope2"), "far": ("progressive",)}
    shown = {
        title: searches
        for group, title in study.groups.items()
        if (searches := [s for s in study.searches if s["search"] in by_length.get(group, ())])
    }
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
        colour, width = COLOURS[names.index(search["search"])], 1.8 if is_first else 0.9
        label = label if is_first else None
        axes.plot(genome["factors"], color=colour, linewidth=width, label=label)
