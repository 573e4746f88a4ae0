"""Draws the figures of an extension study, as SVG."""

from typing import Any

from matplotlib.figure import Figure

from experiments.results.extensions import ExtensionStudy, windowed
from experiments.results.lengths import summarise
from experiments.results.reports import length_figures
from experiments.results.reports.drawing import drawing_style, finish, styles_of, svg
from experiments.results.statistics import Cells, by_seed, cells_of

NAME = "windowed"  # the line of the plain model that sees no more than its training length
_GREY: dict[str, Any] = {"color": "#777777", "linestyle": "-", "linewidth": 2.4}


def draw(study: ExtensionStudy) -> dict[str, tuple[str, str, str]]:
    """Returns title, caption and SVG of each figure by its name; one without data is left out."""
    tables = {"zero-shot" if n == 0 else f"{n} steps": _by_length(study, n) for n in study.steps}
    tables = {name: cells for name, cells in tables.items() if cells}
    drawn = {}
    styles = styles_of(scheme for cells in tables.values() for scheme in cells) | {NAME: _GREY}
    with drawing_style():
        labels = "context length in tokens", "bits per byte"
        caption = (
            "Dotted: the train length; bands: standard error; ▲ where a line leaves the frame, its "
            "last value beside the name. Grey: the plain model that sees no more than its train "
            "length."
        )
        for name, cells in tables.items():
            both = cells | _level(study, cells)
            lines = length_figures.lines(study, both, styles, *labels)
            title = f"Loss by context length, {name}"
            drawn[f"loss_vs_length_{name.replace(' ', '_')}"] = (title, caption, svg(lines))
        counts = [scheme for cells in tables.values() for scheme in cells]
        tuned = [scheme for scheme in dict.fromkeys(counts) if counts.count(scheme) > 1]
        if tuned:
            panels = length_figures.panels(study, tables, tuned)
            caption = "One plot for each method that was tuned. Bits per byte by context length."
            drawn["before_and_after"] = ("Before and after fine-tuning", caption, svg(panels))
        if len(tables) > 2:
            title = f"Loss at {study.about['target']}x by steps of fine-tuning"
            caption = "Grey: the plain model that sees no more than its train length."
            drawn["loss_vs_steps"] = (title, caption, svg(_by_steps(study, styles)))
    return drawn


def _by_length(study, steps) -> Cells:
    return summarise(study.at(steps).records, split="test", protocol="last")


def _level(study, cells) -> Cells:
    """Returns the windowed model as a line that is the same at every length."""
    lengths = {length for row in cells.values() for length in row}
    level = windowed(study)
    return {NAME: dict.fromkeys(lengths, level)} if level else {}


def _by_steps(study: ExtensionStudy, styles) -> Figure:
    """Draws the loss at the target length against the steps of fine-tuning."""
    target = study.about["target"]
    records = [r for r in study.records if (r["protocol"], r["multiple"]) == ("last", target)]
    cells = cells_of(by_seed(records, "steps", "bits_per_byte", "by steps"))
    cells = {scheme: row for scheme, row in cells.items() if len(row) > 1}
    drawing = Figure(figsize=(8.8, 4.2), layout="constrained")
    axes = drawing.add_subplot()
    # Evenly spaced, because a logarithmic axis has no 0.
    places = {steps: place for place, steps in enumerate(study.steps)}
    for scheme, row in cells.items():
        means, errors, _ = zip(*(row[steps] for steps in sorted(row)), strict=True)
        axes.errorbar(
            [places[steps] for steps in sorted(row)],
            means,
            [error or 0 for error in errors],
            **styles[scheme],
            marker="o",
            markersize=3,
            label=scheme,
        )
    if level := windowed(study):
        axes.axhline(level[0], **_GREY, label=NAME)
    axes.set_xticks(list(places.values()), list(map(str, places)))
    axes.set(xlabel="steps of fine-tuning", ylabel="bits per byte")
    finish(axes)
    axes.legend(frameon=False)
    return drawing
