"""Reports a length study: ``report.html`` to read, ``results.csv`` and ``results.json``."""

from pathlib import Path

from markupsafe import Markup
from rich.console import Console

from experiments.results import lengths
from experiments.results.length_table import CLEAR_GAIN, LengthTable, heading, length_table
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
    f"{CLEAR_GAIN} bits per byte than with less"
)


def write(folder: Path, study: lengths.LengthStudy) -> Path:
    """Writes the report and its two main figures into ``folder``; returns ``report.html``'s path.

    Raises a ValueError if two records claim the same measurement.
    """
    about, drawn, tables = study.about, length_figures.draw(study), []
    for evaluation in lengths.evaluations(study):
        title = f"{evaluation.split} split, {lengths.evaluation_name(study, evaluation)}"
        shown, is_last = length_table(study, evaluation), evaluation.protocol == "last"
        more = grid(length_table(study, evaluation, "perplexity")) if is_last else ""
        tables.append((title, is_last, grid(shown), more, shown.statement))
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
    table = length_table(study, study.main)
    columns = ["\n".join(heading(study, column)) for column in table.columns]
    shown = page.terminal_table(title, [*columns, "gains\nto"], _rows(table))
    shown.caption = f"{mark(study)}. 'Gains to' {EFFECTIVE}."
    if len(table.cells):
        console.print(shown)
        console.print(table.statement, highlight=False)


def grid(table: LengthTable) -> Markup:
    """Returns the table of one evaluation, shaded where a scheme is worse than at its own 1x."""
    heads = [page.GridCell(*heading(table.study, column)) for column in table.columns]
    if table.effective:
        heads.append(page.GridCell("effective", "context"))
    rows = _rows(table)
    runs = [r for r in table.study.training if r["trained"] != r["scheme"]]
    trained = {r["scheme"]: r["trained"] for r in runs}
    if trained.keys() & rows.keys():
        heads.insert(0, page.GridCell("trained as", is_words=True))
        for scheme, cells in rows.items():
            cells.insert(0, page.GridCell(trained.get(scheme, ""), is_words=True))
    return page.grid(heads, rows)


def _rows(table: LengthTable) -> dict[str, list[page.GridCell]]:
    """Returns the cells of a table by scheme, with the effective context if last tokens count."""
    rows = page.grid_cells(table.cells, table.columns)
    for cell in table.cells.itertuples():
        row, place = rows[cell.scheme], table.columns.index(cell.x)
        mark = "✓" * cell.is_gain + "▲" * cell.is_ahead
        row[place] = row[place]._replace(mark=mark, depth=_depth(cell.worse))
    for scheme, tokens in table.effective.items():
        rows[scheme].append(page.GridCell(str(tokens)))
    return rows


def _depth(worse: float) -> float:
    """Returns how dark a cell is: 0 at the scheme's own 1x, 1 where it is worse by half or inf."""
    return min(max(worse, 0.0) / 0.5, 1.0) ** 0.5
