"""Reports an extension study: the page of a length study with one more axis, and a table."""

import collections
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from rich.console import Console

from experiments.results.extensions import (
    LAST,
    PROMISED,
    THROUGH_WINDOW,
    ExtensionStudy,
    retention,
    windowed,
)
from experiments.results.length_table import WINDOWED_COLUMN, heading, length_table
from experiments.results.reports import length_figures, page
from experiments.results.reports.drawing import drawing_style, finish, styles_of, svg
from experiments.results.reports.length_report import grid, mark, print_lengths
from experiments.results.reports.markdown import markdown_table
from experiments.results.reports.templates import FIGURES
from experiments.results.statistics import by_seed, cells_of, with_margin

NAME = "windowed"  # the line of the plain model that sees no more than its training length
_GREY: dict[str, Any] = {"color": "#777777", "linestyle": "-", "linewidth": 2.4}


def write(folder: Path, study: ExtensionStudy) -> Path:
    """Writes report, figures, results and a Markdown table; returns ``report.html``'s path.

    Raises a ValueError if two records claim the same measurement.
    """
    about, drawn, written = study.about, draw(study), markdown(study)
    counts = {r["multiple"]: r["documents"] for r in study.records if r["protocol"] == LAST}
    documents = ""
    if len(set(counts.values())) > 1:
        words = ", ".join(f"{counts[multiple]} at {multiple}x" for multiple in sorted(counts))
        documents = f" Documents: {words}; columns of different documents do not compare."
    return page.write_report(
        folder,
        study,
        "extension.html",
        "A trained model made longer",
        {"Model": about["source"], "corpus": about["corpus"], "digest": about["corpus_digest"]},
        {f"{name}.svg": picture for name, (*_, picture) in drawn.items()} | {"table.md": written},
        target=_target(study),
        tables={_after(steps): grid(length_table(study.at(steps))) for steps in study.steps},
        mark=mark(study.at(0)),
        documents=documents,
        drawn=drawn,
        accuracy_kept=_accuracy_kept(study),
        share=f"{PROMISED:.0%}",
        markdown=written,
    )


def print_tables(study: ExtensionStudy, console: Console) -> None:
    """Prints bits per byte by length for each number of steps, what is kept, and what failed."""
    page.print_failures(study.failures, console)
    for steps in study.steps:
        title = f"{_after(steps)}: bits per byte, mean ± half of its 95 % interval over seeds"
        print_lengths(study.at(steps), title, console)
    columns = ["steps", "loss", "accuracy kept", f"above {PROMISED:.0%}"]
    table = page.terminal_table(f"short context, under the encoding for {_target(study)}", columns)
    for (scheme, steps), retained in retention(study.records).items():
        table.add_row(scheme, str(steps), *retained.words.values(), retained.verdict)
    if table.row_count:
        console.print(table)
    console.print(study.about["rules"], highlight=False)


def markdown(study: ExtensionStudy) -> str:
    """Returns one table of all results, with a row for each method and number of steps."""
    retained, runs = retention(study.records), study.training
    costs = [_means(by_seed(runs, "steps", key, "cost")) for key in ("tokens", "seconds")]
    tables = {steps: length_table(study.at(steps)) for steps in study.steps}
    columns = sorted({c for of in tables.values() for c in of.columns if c < WINDOWED_COLUMN})
    lengths = [f"{name} ({tokens})" for name, tokens in (heading(study, c) for c in columns)]
    heads = ["method", "steps", *lengths, "short loss", "short accuracy kept", "tokens", "seconds"]
    rows = []
    for steps, table in tables.items():
        for scheme, cells in page.grid_cells(table.cells, columns).items():
            losses = [cell.plain.replace("±", "± ") for cell in cells]
            left = retained.get((scheme, steps))
            short = ["-", "-"] if left is None else left.words.values()
            label = f"{scheme}, {steps} steps"
            cost = [f"{of_runs.get((label, steps), 0):,.0f}" for of_runs in costs]
            rows.append([f"`{scheme}`", str(steps), *losses, *short, *cost])
    level = windowed(study)
    first = with_margin(level.mean, level.margin) if level else "-"
    rows.append([f"*{NAME}*", "0", first, *["-"] * (len(heads) - 3)])
    return markdown_table(heads, rows)


def _means(rows: pd.DataFrame) -> dict[tuple[str, int], float]:
    """Returns means over seeds by scheme and steps."""
    return rows.groupby(["scheme", "x"])["value"].mean().to_dict()


def _accuracy_kept(study: ExtensionStudy) -> str:
    """Returns the table of what is kept of the short context, or "" if that was not measured."""
    heads = [
        page.GridCell(head, "zero-shot" if steps == 0 else f"{steps} steps")
        for steps in study.steps
        for head in ("loss", "accuracy kept", f"above {PROMISED:.0%}")
    ]
    retained, rows = retention(study.records), dict[str, list[str]]()
    for scheme in dict.fromkeys(scheme for scheme, _ in retained):
        for steps in study.steps:
            left = retained.get((scheme, steps))
            shown = [*left.words.values(), left.verdict] if left else ["-"] * 3
            rows.setdefault(scheme, []).extend(shown)
    return page.grid(heads, rows) if rows else ""


def _after(steps: int) -> str:
    return "Zero-shot" if steps == 0 else f"After {steps} steps of fine-tuning"


def _target(study) -> str:
    target, trained = study.about["target"], study.about["train_length"]
    return f"{target}x ({target * trained} tokens)"


def draw(study: ExtensionStudy) -> dict[str, tuple[str, str, str]]:
    """Returns title, caption and SVG of each figure by its name; one without data is left out."""
    tables = {
        "zero-shot" if n == 0 else f"{n} steps": cells
        for n in study.steps
        if len(cells := length_figures.cells(study.at(n)))
    }
    plain, drawn = _plain(study), {}
    schemes = [scheme for cells in tables.values() for scheme in cells["scheme"].unique()]
    styles = styles_of(schemes) | {NAME: _GREY}
    with drawing_style():
        for name, cells in tables.items():
            labels = "context length in tokens", "bits per byte"
            both = pd.concat([cells, plain]) if len(plain) else cells
            lines = length_figures.lines(study, both, styles, *labels)
            title, caption = FIGURES["lengths"]
            figure = f"{title}, {name}", caption, svg(lines)
            drawn[f"loss_vs_length_{name.replace(' ', '_')}"] = figure
        counts = collections.Counter(schemes)
        if tuned := [scheme for scheme, count in counts.items() if count > 1]:
            panels = length_figures.panels(study, tables, tuned)
            drawn["before_and_after"] = (*FIGURES["before_and_after"], svg(panels))
        if len(tables) > 2:
            title = f"Loss at {study.about['target']}x by steps of fine-tuning"
            drawn["loss_vs_steps"] = title, FIGURES["steps"][1], svg(_by_steps(study, styles))
    return drawn


def _plain(study: ExtensionStudy) -> pd.DataFrame:
    """Returns the cells of the plain model through its window, at the lengths that score as much.

    The loss is the same at each of them, because the same tokens are scored.
    """
    through = [r for r in study.records if r["protocol"] == THROUGH_WINDOW]
    scored = {r["tokens"] for r in through}
    of_last = (r for r in study.records if r["protocol"] == LAST and r["tokens"] in scored)
    lengths = sorted({r["length"] for r in of_last})
    records = [r | {"scheme": NAME, "length": length} for length in lengths for r in through]
    return cells_of(by_seed(records, "length", "bits_per_byte", "windowed"))


def _by_steps(study: ExtensionStudy, styles) -> Figure:
    """Draws the loss at the target length against the steps of fine-tuning."""
    target = study.about["target"]
    records = [r for r in study.records if (r["protocol"], r["multiple"]) == (LAST, target)]
    cells = cells_of(by_seed(records, "steps", "bits_per_byte", "by steps"))
    drawing = Figure(figsize=(8.8, 4.2), layout="constrained")
    axes = drawing.add_subplot()
    # Evenly spaced, because a logarithmic axis has no 0.
    places = {steps: place for place, steps in enumerate(study.steps)}
    for scheme, row in cells.groupby("scheme", sort=False):
        row = row.assign(place=row["x"].map(places)).sort_values("place")
        if len(row) > 1:
            style = styles[scheme] | {"marker": "o", "markersize": 3, "label": scheme}
            axes.errorbar(row["place"], row["mean"], row["margin"].fillna(0), **style)
    if level := windowed(study):
        axes.axhline(level.mean, **_GREY, label=NAME)
    axes.set_xticks(list(places.values()), list(map(str, places)))
    axes.set(xlabel="steps of fine-tuning", ylabel="bits per byte")
    finish(axes)
    axes.legend(frameon=False)
    return drawing
