"""The report of a length study: ``report.html`` to read, ``results.csv`` and ``results.json``."""

import csv
import dataclasses
import html
import io
import json
import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from rich.box import HORIZONTALS
from rich.console import Console
from rich.table import Table
from rich.text import Text

from experiments import figures
from experiments.record import write_files
from experiments.study import (
    BASELINE,
    MAIN,
    Evaluation,
    Study,
    View,
    evaluation_name,
    evaluations,
    heading,
    mean_and_stderr,
)

MARK = "✓ for every seed better than the same model fed only its last 1x tokens (windowed)"


def write(folder: str | Path, study: Study) -> Path:
    """Writes the report and its two main figures into ``folder``; returns ``report.html``'s path.

    ``results.json`` has null for a number that is not finite; ``results.csv`` tells nan from inf.

    Raises:
      ValueError: the study is empty, or two records claim the same measurement.
    """
    _check(study)
    drawn = figures.draw(study)
    files = result_files(study) | {"report.html": _page(study, drawn)}
    named = {f"{name}.svg": svg for name, svg in drawn.items() if name != "protocols"}
    write_files(Path(folder), files | named)
    return Path(folder) / "report.html"


def result_files(study) -> dict[str, str]:
    """``results.csv``, of the ``records`` of a study, and ``results.json``, of everything."""
    table = io.StringIO(newline="")
    columns = dict.fromkeys(key for record in study.records for key in record)
    rows = csv.DictWriter(table, list(columns), lineterminator="\n")
    rows.writeheader()
    rows.writerows(study.records)
    python_json = json.dumps(dataclasses.asdict(study), default=_native)
    everything = json.loads(python_json, parse_constant=lambda _: None)
    return {
        "results.csv": table.getvalue(),
        "results.json": json.dumps(everything, indent=1) + "\n",
    }


def print_table(study: Study, console: Console | None = None) -> None:
    """Prints bits per byte by length, best scheme first, and what failed; raises as ``write``."""
    _check(study)
    console = console or Console()
    for failure in study.failures:
        console.print(Text("failed: {scheme}, seed {seed}: {reason}".format(**failure), "red"))
    view = View.of(study, MAIN)
    columns = ["\n".join(heading(study, column)) for column in view.columns]
    table = terminal_table("bits per byte, mean ± standard error over seeds", columns)
    table.caption = MARK
    for scheme in view.order:
        row = [Text(scheme, "italic" if scheme == BASELINE else "")]
        for column in view.columns:
            words = "".join(view.words(scheme, column))
            row.append(Text(words, "bold" if view.is_best(scheme, column) else ""))
        table.add_row(*row)
    if view.order:
        console.print(table)


def terminal_table(title: str, columns: Iterable) -> Table:
    """A table by scheme in which, where the terminal is narrow, errors go below their means."""
    table = Table(title=title, box=HORIZONTALS, collapse_padding=True, pad_edge=False)
    table.add_column("scheme", no_wrap=True)
    for column in columns:
        table.add_column(str(column), justify="right")
    return table


def _check(study: Study) -> None:
    if not study.records and not study.failures:
        raise ValueError("the study has no records and no failures: there is nothing to report")


STYLE = """
:root { color-scheme: light }
body { font: 16px/1.5 system-ui, sans-serif; color: #1b1b1b; background: #fff; max-width: 1100px;
  margin: auto; padding: 1.5rem 1rem 4rem }
h1 { font-size: 1.7rem; line-height: 1.2 } h2 { font-size: 1.2rem; margin: 2.4rem 0 .5rem }
p, figcaption { max-width: 90ch } figure { margin: 0 } .wide { overflow-x: auto }
figcaption { color: #555; font-size: .9rem; margin: .6rem 0 1rem }
svg { width: 100%; min-width: 600px; height: auto }
pre, code { font: .85rem/1.45 ui-monospace, monospace; overflow-wrap: anywhere }
pre { background: #f5f5f5; padding: .7rem .9rem; white-space: pre-wrap; border-radius: 4px }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums }
th, td { padding: .28rem .4rem .28rem .75rem; text-align: right; white-space: nowrap }
tr { border-bottom: 1px solid #ddd } thead tr { border-bottom: 2px solid #333 }
th { vertical-align: bottom } th small { display: block } th.text, td.text { text-align: left }
tbody th { position: sticky; left: 0; background: #fff; font-weight: 500 }
.baseline > * { border-block: 2px solid #777; font-style: italic }
small { color: #444; font-weight: 400 } td i { display: inline-block; width: 1.2em }
summary { cursor: pointer; margin: .8rem 0 .4rem; font-weight: 600 }
.failed { border-left: 5px solid #b3261e; background: #fdf1f0; padding: .6rem 1rem }
.key { padding: .1rem .45rem; border: 1px solid #ddd; color: #1b1b1b }
@media (max-width: 600px) { body { font-size: 15px } }
@media print { body { max-width: none; font-size: 11px; padding: 0 } table { font-size: 9px }
  * { print-color-adjust: exact } tr, figure { break-inside: avoid }
  .wide { overflow: visible } h2, summary { break-after: avoid } tbody th { position: static } }
"""

FIGURES = {
    "loss_vs_length": (
        "Loss by context length",
        "The main test. Dotted: the train length; bands: standard error; ▲ where a line leaves the "
        "frame, its last value beside the name; x the last finite point of a line.",
    ),
    "loss_vs_position": (
        "Loss by position in the longest context",
        "Test split. Each point is the mean over a bucket of positions, at its right edge.",
    ),
    "protocols": (
        "The same models under different protocols",
        "Bits per byte by context length. Non-overlapping windows score every token, so a longer "
        "window looks better merely because fewer tokens have little context.",
    ),
}


def _page(study: Study, drawn: dict[str, str]) -> str:
    about = {key: text(value) for key, value in study.about.items()}
    seeds = ", ".join(map(str, sorted({r["seed"] for r in study.records}))) or "none"
    title = "Length extrapolation of positional encodings"
    count = len({r["scheme"] for r in study.records})
    intro = (
        f"{count} encodings, trained at {about['train_length']} tokens and tested at longer "
        f"lengths; seeds: {seeds}. The main test scores the same last {about['last_tokens']} "
        "tokens at every length: only the context before them grows. Corpus: "
        f"{about['corpus']}, digest <code>{about['corpus_digest']}</code>."
    )
    sections = ["".join(_section(study, e)) for e in evaluations(study)]
    figure_parts = [figure(name, *FIGURES[name], svg) for name, svg in drawn.items()]
    return page(title, intro, study, [*sections[:1], *figure_parts, *sections[1:]])


def page(title: str, intro: str, study, parts: list[str]) -> str:
    """One HTML page, whole in itself: what was run, what failed, ``parts``, cost and config."""
    about = {key: text(value) for key, value in study.about.items()}
    # A browser would break inside "--".
    command = study.about["command"].replace(" --", " \\\n  --")
    setup = {key: study.about[key] for key in ("config", "versions")}
    everything = [
        "<!doctype html><html lang=en><meta charset=utf-8>"
        f"<meta name=viewport content='width=device-width'><title>{title}</title>"
        f"<style>{STYLE}</style><h1>{title}</h1><p>{intro} Device: {about['device']}. Revision "
        f"<code>{about['git']}</code>, {about['date']}.</p>",
        f"<pre>{text(command)}</pre>",
        _failures(study),
        *parts,
        _training(study),
        "<details><summary>Configuration and versions</summary>",
        f"<pre>{text(json.dumps(setup, indent=2, default=_native))}</pre></details>\n",
    ]
    return "\n".join(everything)


def _section(study: Study, evaluation: Evaluation) -> Iterator[str]:
    split, name = evaluation[0], f"{evaluation[0]} split, {evaluation_name(study, evaluation)}"
    if evaluation[1] != "last":
        yield f"<details><summary>Bits per byte: {text(name)}</summary>"
        yield _table(study, evaluation) + "</details>"
        return
    domain = "" if split == "test" else " across domains"
    yield f"<h2>Bits per byte{domain}: {text(name)}</h2>{_table(study, evaluation)}"
    keys = " ".join(f"<span class=key{_shade(w)}>{w:.0%}</span>" for w in (0, 0.05, 0.2, 0.5))
    yield (
        "<figcaption>Lower is better: mean ± standard error over seeds, best of a column in bold, "
        "rows in order of 4x (or the longest). Shading: worse than the scheme's own 1x by "
        f"{keys} or more. {MARK}: it gains from the longer context. Ruled off: {BASELINE}, the "
        "baseline without positional encoding. Trained as: the checkpoint of that scheme, its "
        "encoding swapped.</figcaption><details open><summary>Perplexity per token</summary>"
    )
    yield _table(study, evaluation, "perplexity") + "</details>"


def _table(study: Study, evaluation: Evaluation, metric: str = "bits_per_byte") -> str:
    view = View.of(study, evaluation, metric)
    trained = {r["scheme"]: r["trained"] for r in study.training if r["trained"] != r["scheme"]}
    is_swapped = bool(trained.keys() & view.order)
    heads = ["{}<small>{}</small>".format(*heading(study, column)) for column in view.columns]
    rows = {}
    for scheme in view.order:
        rows[scheme] = [f"<td class=text>{text(trained.get(scheme, ''))}"] * is_swapped
        for column in view.columns:
            mean, extra, mark = view.words(scheme, column)
            mean = f"<b>{mean}</b>" if view.is_best(scheme, column) else mean
            shade = _shade(view.worse(scheme, column))
            rows[scheme].append(f"<td{shade}>{mean}<small>{extra}</small><i>{mark}</i>")
    return grid(["<th class=text>trained as"] * is_swapped + [f"<th>{h}" for h in heads], rows)


def _training(study: Study) -> str:
    rows: dict[str, list[str]] = {}
    own = [r for r in study.training if r["trained"] == r["scheme"]]
    own = [r | {"tokens per second": r["tokens"] / r["seconds"]} for r in own]
    digits = {"parameters": 0, "steps": 0, "tokens": 0, "seconds": 1, "final_loss": 3}
    digits["tokens per second"] = 0
    for scheme in sorted({r["scheme"] for r in own}):
        for key, places in digits.items():
            mean, stderr, _ = mean_and_stderr([r[key] for r in own if r["scheme"] == scheme])
            shown = f"{mean:,.{places}f}" if mean < math.inf else "not finite"
            extra = f"<small> ± {stderr:,.{places}f}</small>" if stderr else ""
            rows.setdefault(scheme, []).append(f"<td>{shown}{extra}")
    heads = [f"<th>{key.replace('_', ' ')}" for key in digits]
    return f"<h2>Training cost</h2>{grid(heads, rows)}" if rows else ""


def grid(heads: list[str], rows: dict[str, list[str]]) -> str:
    """A table with a row for each scheme; heads and cells begin with their tags."""
    body = "".join(
        f"<tr{' class=baseline' * (name == BASELINE)}><th class=text>{text(name)}{''.join(cells)}"
        for name, cells in rows.items()
    )
    head = f"<thead><tr><th class=text>scheme{''.join(heads)}"
    return f"<div class=wide><table>{head}<tbody>{body}</table></div>"


def figure(name: str, title: str, caption: str, svg: str) -> str:
    """A figure with an id-safe ``name`` of its own."""
    svg = re.sub(r' xmlns(:xlink)?="[^"]*"', "", svg[svg.index("<svg") :])
    # An id may occur once in a page, and matplotlib calls the parts of every figure the same.
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    return (
        f"<h2>{title}</h2><figure><div class=wide role=img aria-label='{title}'>{svg}</div>"
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _failures(study: Study) -> str:
    reasons = "".join(
        f"<li><b>{text(f['scheme'])}</b>, seed {text(f['seed'])}: {text(f['reason'])}"
        for f in study.failures
    )
    head = f"<div class=failed><b>Runs that failed: {len(study.failures)}</b>"
    return f"{head}<ul>{reasons}</ul></div>" if reasons else ""


def _shade(worse: float) -> str:
    """A cell's colour, darker where worse: white at the scheme's own 1x, full at 50 % or inf."""
    if worse <= 0:
        return ""
    depth = min(max(worse, 0) / 0.5, 1) ** 0.5 if math.isfinite(worse) else 1
    rgb = (round(255 + depth * (c - 255)) for c in (243, 166, 98))
    return " style='background:#{:02x}{:02x}{:02x}'".format(*rgb)


def text(value) -> str:
    """``value`` as HTML shows it."""
    return html.escape(str(value))


def _native(value):
    return value.item() if hasattr(value, "item") else str(value)
