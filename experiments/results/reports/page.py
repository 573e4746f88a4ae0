"""Makes the HTML page and the terminal table that the reports of all experiments share."""

import dataclasses
import html
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.box import HORIZONTALS
from rich.console import Console
from rich.table import Table
from rich.text import Text

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

STYLE = """
:root { color-scheme: light }
body { font: 16px/1.5 system-ui, sans-serif; color: #1b1b1b; background: #fff; max-width: 1100px;
  margin: auto; padding: 1.5rem 1rem 4rem }
h1 { font-size: 1.7rem; line-height: 1.2 } h2 { font-size: 1.2rem; margin: 2.4rem 0 .5rem }
p, figcaption { max-width: 90ch } figure { margin: 0 } .wide { overflow-x: auto }
figcaption { color: #555; font-size: .9rem; margin: .6rem 0 1rem }
svg { width: 100%; min-width: 600px; height: auto }
pre, code { font: .85rem/1.45 ui-monospace, monospace; overflow-wrap: anywhere }
pre { background: #f5f5f5; padding: .7rem .9rem; overflow-x: auto; border-radius: 4px }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums }
th, td { padding: .28rem .4rem .28rem .75rem; text-align: right; white-space: nowrap }
tr { border-bottom: 1px solid #ddd } thead tr { border-bottom: 2px solid #333 }
th { vertical-align: bottom } th small { display: block } th.text, td.text { text-align: left }
tbody th { position: sticky; left: 0; background: #fff; font-weight: 500 }
.baseline > * { border-block: 2px solid #777; font-style: italic }
small { color: #444; font-weight: 400 } td i { display: inline-block; width: 1.2em }
summary { cursor: pointer; margin: .8rem 0 .4rem; font-weight: 600 }
.failed { border-left: 5px solid #b3261e; background: #fdf1f0; padding: .6rem 1rem }
.key { padding: .1rem .45rem; border: 1px solid #ddd; color: #1b1b1b; white-space: nowrap }
@media (max-width: 600px) { body { font-size: 15px } }
@media print { body { max-width: none; font-size: 11px; padding: 0 } table { font-size: 9px }
  * { print-color-adjust: exact } tr, figure { break-inside: avoid }
  pre { white-space: pre-wrap } .wide { overflow: visible } tbody th { position: static }
  h2, summary { break-after: avoid } }
"""


def page(title: str, intro: str, study: Study, parts: Iterable[str]) -> str:
    """Returns one self-contained HTML page.

    The page has the command, the runs that failed, ``parts``, the cost of training, and the config.
    ``title``, ``intro`` and ``parts`` are HTML.
    """
    about = {key: text(value) for key, value in study.about.items()}
    setup = {key: study.about[key] for key in ("config", "versions")}
    everything = [
        f"{head(title)}<h1>{title}</h1><p>{intro}</p>",
        f"<p>{about['rules']} Device: {about['device']}. Revision "
        f"<code>{about['git']}</code>, {about['date']}.</p>",
        f"<pre>{command(study.about)}</pre>",
        _failures(study),
        *parts,
        _training(study),
        learning_rates(study.about.get("rates", {})),
        "<details><summary>Configuration and versions</summary>",
        f"<pre>{text(json.dumps(setup, indent=2, default=_native))}</pre></details>\n",
    ]
    return "\n".join(everything)


def head(title: str, style: str = "") -> str:
    """Returns the beginning of a page with ``STYLE`` and a style of its own; ``title`` is HTML."""
    return (
        "<!doctype html><html lang=en><meta charset=utf-8>"
        f"<meta name=viewport content='width=device-width'><title>{title}</title>"
        f"<style>{STYLE}{style}</style>"
    )


def command(about: Mapping[str, Any]) -> str:
    """Returns the command that made a report, as HTML with a line for each option."""
    return text(about["command"].replace(" --", " \\\n  --"))


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


def figure(name: str, title: str, caption: str, svg: str) -> str:
    """Returns a figure with a heading and a caption; ``name`` makes its ids unique in the page."""
    svg = re.sub(r' xmlns(:xlink)?="[^"]*"', "", svg[svg.index("<svg") :])
    # An id may occur once in a page, but matplotlib uses the same ids in every figure.
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    return (
        f"<h2>{title}</h2><figure><div class=wide role=img aria-label='{title}'>{svg}</div>"
        f"<figcaption>{caption}</figcaption></figure>"
    )


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


def _failures(study: Study) -> str:
    reasons = "".join(
        f"<li><b>{text(f['scheme'])}</b>, seed {text(f['seed'])}: {text(f['reason'])}"
        for f in study.failures
    )
    head = f"<div class=failed><b>Runs that failed: {len(study.failures)}</b>"
    return f"{head}<ul>{reasons}</ul></div>" if reasons else ""


def _native(value):
    return value.item() if hasattr(value, "item") else str(value)
