"""Writes the ledger of claims: a page to read, and the same as JSON and CSV."""

import json
import math
import re
from pathlib import Path
from typing import Any

from rich.box import HORIZONTALS
from rich.console import Console
from rich.table import Table
from rich.text import Text

from experiments.results.ledger import CORRECTION, RULE, WORDS
from experiments.results.record import write_files
from experiments.results.reports.page import command, head, text
from experiments.results.statistics import csv_of, number, with_margin

Row = dict[str, Any]

_COLOURS = {
    "reproduced": "#cfe3f5",
    "not reproduced": "#f8d5c0",
    "mixed or underpowered": "#f0f0f0",
    "untestable at this scale": "#fff4cc",
    "missing": "#fff",
}
_STYLE = """
tbody th, td.found, td.text { white-space: normal; min-width: 9rem } td.found { min-width: 12rem }
"""
_READING = (
    "In the column <i>interval</i>, the bar is the predicted range, the dot the mean over seeds, "
    "and the line its 95 % interval. Losses on text are those of the last tokens; under <i>all "
    "tokens</i> is the verdict where all tokens count. A flat loss is not yet a low one: RoPE read "
    "through a window of the trained length is flat too, and the atlas compares all schemes with "
    "it."
)
_WIDTH, _HEIGHT = 220, 18  # of the picture of an effect, in pixels


def write(folder: Path, rows: list[Row], about: dict[str, Any]) -> Path:
    """Writes the ledger into ``folder`` and returns the path of its page.

    ``about["setup"]`` says of each study, by name, how its models were trained.
    """
    everything = {"rule": RULE, "correction": CORRECTION, "about": about, "claims": rows}
    write_files(
        folder,
        {
            "claims.html": _page(rows, about),
            "claims.json": json.dumps(_plain(everything), indent=1, default=str) + "\n",
            "claims.csv": _csv(rows),
        },
    )
    return folder / "claims.html"


def print_ledger(rows: list[Row], console: Console) -> None:
    """Prints the verdict on every claim, and how many there are of each."""
    heads = ("claim", "verdict", "after correction", "all tokens")
    table = Table(*heads, title="published claims", box=HORIZONTALS)
    for row in rows:
        others = (row["after_correction"], row.get("all_tokens", row["verdict"]))
        changed = (other if other != row["verdict"] else "" for other in others)
        table.add_row(row["name"], Text(row["verdict"]), *changed)
    console.print(table)
    console.print(counts(rows), highlight=False)
    console.print(f"after correction: {counts(rows, 'after_correction')}", highlight=False)


def counts(rows: list[Row], column: str = "verdict") -> str:
    """Says how many claims have a verdict, by the verdicts that there are."""
    found = {word: sum(row[column] == word for row in rows) for word in WORDS}
    return ", ".join(f"{count} {word}" for word, count in found.items() if count)


def _plain(value):
    """Returns ``value`` for JSON, with numbers that are not finite as words."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _csv(rows: list[Row]) -> str:
    effects = [
        {f"claim_{key}": row[key] for key in ("name", "verdict", "after_correction")} | effect
        for row in rows
        for effect in row["effects"]
    ]
    return csv_of(effects, effects[0])


def _page(rows: list[Row], about: dict[str, Any]) -> str:
    setup = "".join(
        f"<li><b>{text(name)}</b>: {text(words)}." for name, words in about["setup"].items()
    )
    parts = [
        f"{head('Published claims', _STYLE)}<h1>Published claims, put to the test</h1><p>{RULE}</p>"
        f"<p>{CORRECTION}</p><p>{_READING} Text is read by {text(about['setup']['language'])} "
        "(<a href='#how'>all models</a>).</p>"
        f"<p>{counts(rows)}. After correction: {counts(rows, 'after_correction')}.</p>",
        _table(rows),
        *map(_claim, rows),
        f"<h2 id=how>How it was made</h2><p>The models of each study:</p><ul>{setup}</ul>"
        f"<p>{text(about['rules'])}</p><p>Device: {text(about['device'])}. Revision "
        f"<code>{text(about['git'])}</code>, {text(about['date'])}.</p><pre>{command(about)}</pre>",
        "</html>\n",
    ]
    return "\n".join(parts)


def _key(word: str) -> str:
    """Returns a verdict in its colour."""
    return f"<span class=key style='background:{_COLOURS[word]}'>{text(word)}</span>"


def _table(rows: list[Row]) -> str:
    """Returns all claims with their verdicts, and the scale that an untestable one needs."""
    heads = ("verdict", "after correction", "all tokens", "scale needed")
    body = []
    for row in rows:
        name, word = row["name"], row["verdict"]
        others = (row["after_correction"], row.get("all_tokens"))
        cells = [_key(word), *(_key(other) if other else "" for other in others)]
        cells.append(text(row["scale_needed"]) if word == "untestable at this scale" else "")
        link = f"<a href='#{name}'>{text(name.replace('_', ' '))}</a>"
        body.append(f"<tr><th class=text>{link}" + "".join(f"<td class=text>{c}" for c in cells))
    columns = "".join(f"<th class=text>{name}" for name in heads)
    return (
        f"<div class=wide><table><thead><tr><th class=text>claim{columns}<tbody>{''.join(body)}"
        "</table></div>"
    )


def _claim(row: Row) -> str:
    notes = [row["note"]]
    if (other := row.get("all_tokens", row["verdict"])) != row["verdict"]:
        notes.append(f"Where all tokens count, not the last alone, the verdict is {other}.")
    if row["after_correction"] != row["verdict"]:
        notes.append(f"After correction the verdict is {row['after_correction']}.")
    effects = "".join(map(_effect, row["effects"]))
    source = re.sub(
        r"\b\d{4}\.\d{5}\b", r"<a href='https://arxiv.org/abs/\g<0>'>\g<0></a>", text(row["source"])
    )
    return (
        f"<h2 id={row['name']}>{text(row['name'].replace('_', ' '))} {_key(row['verdict'])}</h2>"
        f"<p>{text(row['says'])} Source: {source}. Setting of the source: "
        f"{text(row['made_at'])}.</p>{''.join(f'<p>{text(note)}</p>' for note in notes if note)}"
        "<div class=wide><table><thead><tr><th class=text>number<th>predicted<th>found<th>interval"
        f"<th class=text>verdict<th>p, corrected<tbody>{effects}</table></div>"
    )


def predicted(effect: Row) -> str:
    """Returns the range in which a claim says that a number lies, such as "> 0 and < 0.02"."""
    return " and ".join(
        f"{word} {number(bound)}"
        for word, bound in ((">", effect["low"]), ("<", effect["high"]))
        if math.isfinite(bound)
    )


def _effect(effect: Row) -> str:
    if effect["verdict"] == "missing":
        found, picture = text(effect["why"]), ""
    else:
        seeds = "1 seed" if effect["seeds"] == 1 else f"{effect['seeds']:.0f} seeds"
        margin = None if math.isnan(effect["margin"]) else effect["margin"]
        found = f"{with_margin(effect['mean'], margin)} ({seeds})"
        picture = _picture(effect)
    says = "needed first: " * effect["is_need"] + effect["says"]
    p = "" if math.isnan(effect["p_corrected"]) else number(effect["p_corrected"])
    return (
        f"<tr><th class=text>{text(says)}<td>{predicted(effect)}<td class=found>{found}"
        f"<td>{picture}<td class=text>{text(effect['verdict'])}<td>{p}"
    )


def _picture(effect: Row) -> str:
    """Draws the interval over the predicted range, on a scale of its own."""
    mean, margin = effect["mean"], 0.0 if math.isnan(effect["margin"]) else effect["margin"]
    if not math.isfinite(mean):
        return ""
    bounds = [bound for bound in (effect["low"], effect["high"]) if math.isfinite(bound)]
    marks = [mean - margin, mean + margin, *bounds]
    left, right = min(marks), max(marks)
    room = 0.15 * (right - left) or 1.0
    left, right = left - room, right + room

    def x(value: float) -> float:
        share = (min(max(value, left), right) - left) / (right - left)
        return round(_WIDTH * share, 1)

    low, high, middle = x(effect["low"]), x(effect["high"]), _HEIGHT / 2
    return (
        f"<svg style='width:{_WIDTH}px;min-width:0' viewBox='0 0 {_WIDTH} {_HEIGHT}' role=img "
        f"aria-label='interval over the predicted range'><rect x={low} y=0 width={high - low:.1f} "
        f"height={_HEIGHT} fill=#cfe3f5 /><line x1={x(mean - margin)} x2={x(mean + margin)} "
        f"y1={middle} y2={middle} stroke=#222 stroke-width=2 /><circle cx={x(mean)} cy={middle} "
        "r=4 fill=#222 /></svg>"
    )
