"""Reports an extension study: the page of a length study with one more axis, and a table."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from markupsafe import Markup
from matplotlib.figure import Figure
from rich.console import Console

from experiments.results.extensions import KEPT, ExtensionStudy, Retention, retention, windowed
from experiments.results.lengths import MAIN, WINDOWED_COLUMN, View, heading, summarise
from experiments.results.reports import length_figures
from experiments.results.reports.drawing import drawing_style, finish, styles_of, svg
from experiments.results.reports.length_report import mark, print_lengths, table
from experiments.results.reports.markdown import markdown_table
from experiments.results.reports.page import (
    GridCell,
    grid,
    page,
    print_failures,
    terminal_table,
    write_report,
)
from experiments.results.reports.templates import figure, folded, section
from experiments.results.statistics import by_seed, cells_of, mean_and_stderr, words

NAME = "windowed"  # the line of the plain model that sees no more than its training length
_GREY: dict[str, Any] = {"color": "#777777", "linestyle": "-", "linewidth": 2.4}


def write(folder: Path, study: ExtensionStudy) -> Path:
    """Writes report, figures, results and a Markdown table; returns ``report.html``'s path.

    Raises:
      ValueError: the study is empty, or two records claim the same measurement.
    """
    study.check()
    drawn = draw(study)
    pictures = {name: picture for name, (*_, picture) in drawn.items()}
    return write_report(folder, study, _page(study, drawn), pictures, table=markdown(study))


def print_tables(study: ExtensionStudy, console: Console) -> None:
    """Prints bits per byte by length for each number of steps, what is kept, and what failed."""
    study.check()
    print_failures(study.failures, console)
    for steps in study.steps:
        title = f"{_after(steps)}: bits per byte, mean ± standard error over seeds"
        print_lengths(study.at(steps), title, console)
    columns = ["steps", "loss", "accuracy kept", f"above {KEPT:.0%}"]
    table = terminal_table(f"short context, under the encoding for {_target(study)}", columns)
    for (scheme, steps), retained in retention(study).items():
        table.add_row(
            scheme, str(steps), change_words(retained), kept_words(retained), retained.verdict
        )
    if table.row_count:
        console.print(table)
    console.print(study.about["rules"], highlight=False)


def markdown(study: ExtensionStudy) -> str:
    """Returns one table of all results, with a row for each method and number of steps."""
    retained, costs = retention(study), _costs(study)
    columns = sorted({c for steps in study.steps for c in View.of(study.at(steps), MAIN).columns})
    columns = [column for column in columns if column < WINDOWED_COLUMN]
    lengths = [f"{name} ({tokens})" for name, tokens in (heading(study, c) for c in columns)]
    heads = ["method", "steps", *lengths, "short loss", "short accuracy kept", "tokens", "seconds"]
    rows = []
    for steps in study.steps:
        view = View.of(study.at(steps), MAIN)
        for scheme in view.order:
            losses = [GridCell(*words(view.cells, scheme, column)).markdown for column in columns]
            left = retained.get((scheme, steps))
            short = ["-", "-"] if left is None else [change_words(left), kept_words(left)]
            rows.append([f"`{scheme}`", str(steps), *losses, *short, *costs(scheme, steps)])
    level = windowed(study)
    first = GridCell(*words({NAME: {1: level} if level else {}}, NAME, 1)).markdown
    rows.append([f"*{NAME}*", "0", first, *["-"] * (len(heads) - 3)])
    return markdown_table(heads, rows)


def _costs(study):
    """Returns a function that says the tokens and the seconds of a scheme's fine-tuning."""
    by_label = {key: by_seed(study.training, "steps", key, "cost") for key in ("tokens", "seconds")}

    def costs(scheme, steps):
        label = f"{scheme}, {steps} steps"
        values = [by_label[key].get(label, {}).get(steps, {}) for key in ("tokens", "seconds")]
        if not all(values):
            return ["0", "0"]
        tokens, seconds = (mean_and_stderr(seeds.values())[0] for seeds in values)
        return [f"{tokens:,.0f}", f"{seconds:,.0f}"]

    return costs


def _page(study: ExtensionStudy, drawn) -> str:
    about = study.about
    intro = (
        f"One model with rotary positions, trained at {about['train_length']} tokens, read at "
        f"longer lengths under every method, before and after fine-tuning at {_target(study)}; "
        f"seeds: {study.seeds}. The same last {about['last_tokens']} tokens are scored at every "
        "length: only the context before them grows. Windowed is the plain model that sees no more "
        "than its training length."
    )
    parts = [*_tables(study), *(figure(name, *drawing) for name, drawing in drawn.items())]
    if retained := retention(study):
        parts.append(_short_section(study, retained))
    parts.append(folded("The same as Markdown, also in table.md", code=markdown(study)))
    data = {"Model": about["source"], "corpus": about["corpus"], "digest": about["corpus_digest"]}
    return page("A trained model made longer", intro, study, parts, data)


def _tables(study) -> Iterator[Markup]:
    counts = {r["multiple"]: r["documents"] for r in study.records if r["protocol"] == "last"}
    documents = ""
    if len(set(counts.values())) > 1:
        words = ", ".join(f"{counts[multiple]} at {multiple}x" for multiple in sorted(counts))
        documents = f" Documents: {words}; columns of different documents do not compare."
    for steps in study.steps:
        rule = (
            f"Each encoding is the one for {_target(study)}, at every length."
            if steps
            else "At each length, each encoding is the one for that length."
        )
        at = study.at(steps)
        caption = (
            f"{rule} Lower is better: mean ± standard error over seeds, best of a column in bold, "
            f"rows in order of the target length. {mark(at)}. Shading: worse than the method's own "
            f"1x.{documents}"
        )
        yield section(f"{_after(steps)}: bits per byte", table(at, MAIN), caption)


def _short_section(study: ExtensionStudy, retained: dict[tuple[str, int], Retention]) -> Markup:
    heads = [
        GridCell(head, "zero-shot" if steps == 0 else f"{steps} steps")
        for steps in study.steps
        for head in ("loss", "accuracy kept", f"above {KEPT:.0%}")
    ]
    rows: dict[str, list[str]] = {}
    for scheme in dict.fromkeys(scheme for scheme, _ in retained):
        for steps in study.steps:
            left = retained.get((scheme, steps))
            shown = [change_words(left), kept_words(left), left.verdict] if left else ["-"] * 3
            rows.setdefault(scheme, []).extend(shown)
    caption = (
        f"Windows of the training length, every token scored, under the encoding for "
        f"{_target(study)}, against the plain model before: how much the loss grew, ± standard "
        "error over seeds, and the share of the next-token accuracy that is left, ± half of its "
        f"95 % interval. Yes and no: the interval lies above or below {KEPT:.0%}."
    )
    title = f"What is kept at {study.about['train_length']} tokens"
    return section(title, grid(heads, rows), caption)


def change_words(retained: Retention) -> str:
    """Returns by which share the loss at short context grew, ± standard error."""
    return _percent(*retained.change[:2], "+")


def kept_words(retained: Retention) -> str:
    """Returns the share of the accuracy at short context that is kept, ± half of the interval."""
    return _percent(retained.accuracy[0], retained.margin)


def _percent(mean: float, margin: float | None, sign: str = "") -> str:
    if mean == float("inf"):
        return "not finite"
    return f"{mean:{sign}.1%}" + ("" if margin is None else f" ± {margin:.1%}")


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
        if (cells := summarise(study.at(n).records, split="test", protocol="last"))
    }
    level = windowed(study)
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
            lengths = {length for row in cells.values() for length in row}
            plain = {NAME: dict.fromkeys(lengths, level)} if level else {}  # the same everywhere
            both = cells | plain
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
