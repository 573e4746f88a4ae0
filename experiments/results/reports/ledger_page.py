"""Writes the ledger of claims: a page to read, and the same as JSON and CSV."""

import itertools
import json
import math
import re
from pathlib import Path
from typing import Any

from rich.box import HORIZONTALS
from rich.console import Console
from rich.table import Table
from rich.text import Text

from experiments.results.ledger import RULE, WORDS
from experiments.results.record import write_files
from experiments.results.reports.page import command, head, text
from experiments.results.statistics import csv_of, number, with_margin

Row = dict[str, Any]

_COLOURS = {
    "reproduced": "#cfe3f5",
    "not reproduced": "#f8d5c0",
    "inconclusive at this scale": "#f0f0f0",
    "missing": "#fff",
}
_STYLE = """
tbody th, td.found { white-space: normal; min-width: 9rem } td.found { min-width: 12rem }
.all a { display: inline-block; margin: .15rem 0 }
"""
_READING = (
    "In the column <i>interval</i>, the bar is the predicted range, the dot the mean over seeds, "
    "and the line its 95 % interval. Losses on text are those of the last tokens; a claim says so "
    "if another verdict follows where all tokens count."
)
_WIDTH, _HEIGHT = 220, 18  # of the picture of an effect, in pixels


def write(folder: Path, rows: list[Row], about: dict[str, Any]) -> Path:
    """Writes the ledger into ``folder`` and returns the path of its page.

    ``about["setup"]`` says of each study, by name, how its models were trained.
    """
    everything = {"rule": RULE, "about": about, "claims": rows}
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
    table = Table("claim", "verdict", "all tokens", title="published claims", box=HORIZONTALS)
    for row in rows:
        other = row.get("all_tokens", {}).get("verdict", "")
        table.add_row(row["name"], Text(row["verdict"]), other if other != row["verdict"] else "")
    console.print(table)
    console.print(", ".join(_counts(rows).values()), highlight=False)


def _counts(rows: list[Row]) -> dict[str, str]:
    """Returns how many claims have a verdict, in words, by the verdicts that there are."""
    counts = {word: sum(row["verdict"] == word for row in rows) for word in WORDS}
    return {word: f"{count} {word}" for word, count in counts.items() if count}


def _plain(value):
    """Returns ``value`` for JSON, with numbers that are not finite as words."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _csv(rows: list[Row]) -> str:
    columns = ("claim", "verdict", "effect", "low", "high", "mean", "margin", "seeds", "of_effect")
    effects = []
    for row in rows:
        for effect in row["effects"]:
            about = {"claim": row["name"], "verdict": row["verdict"], "effect": effect["says"]}
            effects.append(effect | about | {"of_effect": effect["verdict"]})
    return csv_of(effects, columns)


def _page(rows: list[Row], about: dict[str, Any]) -> str:
    setup = "".join(
        f"<li><b>{text(name)}</b>: {text(words)}." for name, words in about["setup"].items()
    )
    parts = [
        f"{head('Published claims', _STYLE)}<h1>Published claims, put to the test</h1><p>{RULE}</p>"
        f"<p>{_READING} Text is read by {text(about['setup']['language'])} "
        "(<a href='#how'>all models</a>).</p>"
        f"<p>{', '.join(itertools.starmap(_key, _counts(rows).items()))}:</p>"
        f"<p class=all>{' '.join(map(_link, rows))}</p>",
        *map(_claim, rows),
        f"<h2 id=how>How it was made</h2><p>The models of each study:</p><ul>{setup}</ul>"
        f"<p>{text(about['rules'])}</p><p>Device: {text(about['device'])}. Revision "
        f"<code>{text(about['git'])}</code>, {text(about['date'])}.</p><pre>{command(about)}</pre>",
        "</html>\n",
    ]
    return "\n".join(parts)


def _key(word: str, shown: str) -> str:
    """Returns ``shown`` in the colour of a verdict."""
    return f"<span class=key style='background:{_COLOURS[word]}'>{shown}</span>"


def _link(row: Row) -> str:
    """Returns a link to a claim, in the colour of its verdict."""
    return (
        f"<a class=key href='#{row['name']}' title='{text(row['verdict'])}' "
        f"style='background:{_COLOURS[row['verdict']]}'>{text(row['name'].replace('_', ' '))}</a>"
    )


def _claim(row: Row) -> str:
    other = row.get("all_tokens", {}).get("verdict", row["verdict"])
    note = (
        f"<p>Where all tokens count, not the last alone, the verdict is <b>{text(other)}</b>.</p>"
        if other != row["verdict"]
        else ""
    )
    effects = "".join(map(_effect, row["effects"]))
    source = re.sub(
        r"\b\d{4}\.\d{5}\b", r"<a href='https://arxiv.org/abs/\g<0>'>\g<0></a>", text(row["source"])
    )
    return (
        f"<h2 id={row['name']}>{text(row['name'].replace('_', ' '))} "
        f"{_key(row['verdict'], text(row['verdict']))}</h2>"
        f"<p>{text(row['says'])} Source: {source}. Setting of the source: "
        f"{text(row['made_at'])}.</p>{note}<div class=wide><table><thead><tr><th class=text>number"
        f"<th>predicted<th>found<th>interval<th class=text>verdict<tbody>{effects}</table></div>"
    )


def predicted(effect: Row) -> str:
    """Returns the range in which a claim says that a number lies, such as "> 0 and < 0.02"."""
    return " and ".join(
        f"{word} {number(bound)}"
        for word, bound in ((">", effect["low"]), ("<", effect["high"]))
        if math.isfinite(bound)
    )


def _effect(effect: Row) -> str:
    if "mean" not in effect:
        found, picture = text(effect["why"]), ""
    else:
        seeds = "1 seed" if effect["seeds"] == 1 else f"{effect['seeds']} seeds"
        found = f"{with_margin(effect['mean'], effect['margin'])} ({seeds})"
        picture = _picture(effect)
    return (
        f"<tr><th class=text>{text(effect['says'])}<td>{predicted(effect)}<td class=found>{found}"
        f"<td>{picture}"
        f"<td class=text>{text(effect['verdict'])}"
    )


def _picture(effect: Row) -> str:
    """Draws the interval over the predicted range, on a scale of its own."""
    mean, margin = effect["mean"], effect["margin"] or 0.0
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
