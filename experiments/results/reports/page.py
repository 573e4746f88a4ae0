"""Makes the HTML page and the terminal table that the reports of all experiments share."""

import dataclasses
import html
import json
import math
from collections.abc import Iterable, Mapping, Sequence

from rich.box import HORIZONTALS
from rich.console import Console
from rich.table import Table
from rich.text import Text

from experiments.results.reports.templates import document, fill
from experiments.results.statistics import (
    BASELINE,
    Record,
    Study,
    csv_of,
    failure_words,
    mean_and_stderr,
    number,
    or_nan,
)


def page(title: str, intro: str, study: Study, parts: Iterable[str]) -> str:
    """Returns one self-contained HTML page.

    The page has the command, the runs that failed, ``parts``, the cost of training, and the config.
    ``intro`` and ``parts`` are HTML.
    """
    setup = {key: study.about[key] for key in ("config", "versions")}
    body = fill(
        "report.html",
        title=title,
        intro=intro,
        about=study.about,
        failures=study.failures,
        parts=parts,
        training=_training(study),
        rates=learning_rates(study.about.get("rates", {})),
        setup=json.dumps(setup, indent=2, default=_native),
    )
    return document(title, body)


def result_files(study: Study) -> dict[str, str]:
    """Returns ``results.csv``, which has the records, and ``results.json``, which has everything.

    ``results.json`` has null for a number that is not finite; ``results.csv`` tells nan from inf.
    """
    columns = dict.fromkeys(key for record in study.records for key in record)
    python_json = json.dumps(dataclasses.asdict(study), default=_native)
    everything = json.loads(python_json, parse_constant=lambda _: None)
    return {
        "results.csv": csv_of(study.records, columns),
        "results.json": json.dumps(everything, indent=1) + "\n",
    }


def terminal_table(title: str, columns: Iterable) -> Table:
    """Makes a table by scheme; in a narrow terminal errors go below means."""
    table = Table(title=title, box=HORIZONTALS, collapse_padding=True, pad_edge=False)
    table.add_column("scheme", no_wrap=True)
    for column in columns:
        table.add_column(str(column), justify="right")
    return table


def print_failures(failures: Iterable[Record], console: Console) -> None:
    """Prints a line for every run that failed."""
    for failure in failures:
        console.print(Text(failure_words(failure), "red"))


def grid(heads: Iterable[str], rows: Mapping[str, Iterable[str]]) -> str:
    """Returns a table with a row for each scheme; heads and cells begin with their tags."""
    body = "".join(
        f"<tr{' class=baseline' * (name == BASELINE)}><th class=text>{text(name)}{''.join(cells)}"
        for name, cells in rows.items()
    )
    return (
        f"<div class=wide><table><thead><tr><th class=text>scheme{''.join(heads)}"
        f"<tbody>{body}</table></div>"
    )


def mean_cell(values: Iterable[float | None], digits: int) -> str:
    """Returns a cell of ``grid`` with the mean over seeds and its standard error."""
    mean, stderr, _ = mean_and_stderr(map(or_nan, values))
    shown = f"{mean:,.{digits}f}" if mean < math.inf else "not finite"
    return f"<td>{shown}" + (f"<small> ± {stderr:,.{digits}f}</small>" if stderr else "")


def markdown_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a table in Markdown."""
    head, *lines = (f"| {' | '.join(line)} |\n" for line in (heads, *rows))
    return f"{head}|{'---|' * len(heads)}\n{''.join(lines)}"


def text(value: object) -> str:
    """Returns ``value`` as text, escaped for HTML."""
    return html.escape(str(value))


def _training(study: Study) -> str:
    rows: dict[str, list[str]] = {}
    own = [r for r in study.training if r["trained"] == r["scheme"]]
    own = [r | {"tokens per second": r["tokens"] / r["seconds"]} for r in own]
    digits = {"parameters": 0, "steps": 0, "tokens": 0, "seconds": 1, "final_loss": 3}
    digits["tokens per second"] = 0
    for scheme in sorted({r["scheme"] for r in own}):
        for key, places in digits.items():
            values = (r[key] for r in own if r["scheme"] == scheme)
            rows.setdefault(scheme, []).append(mean_cell(values, places))
    heads = [f"<th>{key.replace('_', ' ')}" for key in digits]
    if not any("speedup" in r for r in own):
        return f"<h2>Training cost</h2>{grid(heads, rows)}" if rows else ""
    for scheme, cells in rows.items():
        cells.append(f"<td>{_speedup([r for r in own if r['scheme'] == scheme])}")
    return (
        f"<h2>Training cost</h2>{grid([*heads, '<th>effective speed-up'], rows)}<figcaption>"
        f"Effective speed-up: the compute at which {BASELINE} comes to the scheme's final training "
        "loss, over the scheme's own, 6 x parameters x tokens; &gt; where it does not come to it."
        "</figcaption>"
    )


def learning_rates(tried: Mapping[str, Mapping[float, float]]) -> str:
    """Returns the losses of schemes at all learning rates that were tried, the best in bold."""
    rates = sorted({rate for losses in tried.values() for rate in losses})
    rows = {
        scheme: [
            f"<td>{'<b>' * (losses[rate] == min(losses.values()))}{number(losses[rate])}"
            if losses[rate] < math.inf
            else "<td>no result"
            for rate in rates
        ]
        for scheme, losses in sorted(tried.items())
    }
    if not rows:
        return ""
    return (
        f"<h2>Learning rates</h2>{grid([f'<th>{rate:g}' for rate in rates], rows)}<figcaption>"
        "Training loss over the last tenth of the steps, mean over seeds. Every scheme was trained "
        "at all of these rates; its results are those of its best one, in bold. No result: a seed "
        "has failed, or is not finished.</figcaption>"
    )


def _speedup(runs: list[Record]) -> str:
    """Returns the mean speed-up of a scheme over its seeds, or a lower bound of it."""
    known = [r for r in runs if "speedup" in r]
    if not known:
        return "-"
    if any(r["speedup"] is None for r in known):
        least = min(r["speedup_above" if r["speedup"] is None else "speedup"] for r in known)
        return f"&gt; {least:.2f}"
    mean, stderr, _ = mean_and_stderr(r["speedup"] for r in known)
    return f"{mean:.2f}" + (f"<small> ± {stderr:.2f}</small>" if stderr else "")


def _native(value):
    return value.item() if hasattr(value, "item") else str(value)
