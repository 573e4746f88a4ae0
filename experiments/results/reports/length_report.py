"""Reports a length study: ``report.html`` to read, ``results.csv`` and ``results.json``."""

from pathlib import Path

from markupsafe import Markup
from rich.console import Console

from experiments.results import lengths
from experiments.results.reports import length_figures, page
from experiments.results.statistics import BASELINE


def mark(study: lengths.LengthStudy) -> str:
    """Returns the meaning of the marks in a cell."""
    model = study.about.get("windowed", "the same model")
    return (
        f"✓ is better than {model} when that sees only its last 1x tokens (windowed), and ▲ is "
        f"better than {lengths.WINDOWED}, which is RoPE when it sees no more. Both are compared by "
        "seed, and corrected for the number of cells"
    )


EFFECTIVE = (
    "is the longest context with a gain, if the loss there and in all longer contexts is lower by "
    f"{lengths.CLEAR_GAIN} bits per byte than with less"
)


def write(folder: Path, study: lengths.LengthStudy) -> Path:
    """Writes the report and its two main figures into ``folder``; returns ``report.html``'s path.

    Raises a ValueError if two records claim the same measurement.
    """
    about, drawn, tables = study.about, length_figures.draw(study), []
    for evaluation in lengths.evaluations(study):
        title = f"{evaluation.split} split, {lengths.evaluation_name(study, evaluation)}"
        view, is_last = lengths.View(study, evaluation), evaluation.protocol == "last"
        more = table(lengths.View(study, evaluation, "perplexity")) if is_last else ""
        tables.append((title, is_last, table(view), more, view.statement))
    return page.write_report(
        folder,
        study,
        "length.html",
        "Length extrapolation of positional encodings",
        {"Corpus": about["corpus"], "digest": about["corpus_digest"]},
        {f"{name}.svg": svg for name, svg in drawn.items() if name != "protocols"},
        count=len({r["scheme"] for r in study.records}),
        tables=tables,
        drawn=drawn,
        shades={worse: _depth(worse) for worse in (0.0, 0.05, 0.2, 0.5)},
        mark=mark(study),
        baseline=BASELINE,
        effective=EFFECTIVE,
    )


def print_tables(study: lengths.LengthStudy, console: Console) -> None:
    """Prints bits per byte by length, best scheme first, and what failed; raises as ``write``."""
    page.print_failures(study.failures, console)
    print_lengths(study, "bits per byte, mean ± half of its 95 % interval over seeds", console)
    console.print(study.about["rules"], highlight=False)


def print_lengths(study: lengths.LengthStudy, title: str, console: Console) -> None:
    """Prints the table of the main evaluation."""
    view = lengths.View(study)
    columns = ["\n".join(lengths.heading(study, column)) for column in view.columns]
    shown = page.terminal_table(title, [*columns, "gains\nto"], _rows(view))
    shown.caption = f"{mark(study)}. 'Gains to' {EFFECTIVE}."
    if view.order:
        console.print(shown)
        console.print(view.statement, highlight=False)


def table(view: lengths.View) -> Markup:
    """Returns the table of one evaluation, shaded where a scheme is worse than at its own 1x."""
    heads = [page.GridCell(*lengths.heading(view.study, column)) for column in view.columns]
    if view.evaluation.protocol == "last":
        heads.append(page.GridCell("effective", "context"))
    rows = _rows(view)
    runs = [r for r in view.study.training if r["trained"] != r["scheme"]]
    trained = {r["scheme"]: r["trained"] for r in runs}
    if trained.keys() & rows.keys():
        heads.insert(0, page.GridCell("trained as", is_words=True))
        for scheme, cells in rows.items():
            cells.insert(0, page.GridCell(trained.get(scheme, ""), is_words=True))
    return page.grid(heads, rows)


def _rows(view: lengths.View) -> dict[str, list[page.GridCell]]:
    """Returns the cells of a view by scheme, with the effective context if last tokens count."""
    shown, rows = page.grid_cells(view.cells, view.columns), {}
    for scheme in view.order:
        rows[scheme] = [
            cell._replace(mark=view.marks(scheme, column), depth=_depth(view.worse(scheme, column)))
            for column, cell in zip(view.columns, shown[scheme], strict=True)
        ]
        if view.evaluation.protocol == "last":
            rows[scheme].append(page.GridCell(str(view.effective(scheme))))
    return rows


def _depth(worse: float) -> float:
    """Returns how dark a cell is: 0 at the scheme's own 1x, 1 where it is worse by half or inf."""
    return min(max(worse, 0.0) / 0.5, 1.0) ** 0.5
