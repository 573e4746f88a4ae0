"""Writes the ledger of claims: a page to read, and the same as JSON and CSV."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import HORIZONTALS
from rich.console import Console
from rich.table import Table
from rich.text import Text

from experiments.results.ledger import CORRECTION, MISSING, REPRODUCED, RULE, UNTESTABLE, WORDS
from experiments.results.record import write_files, write_json
from experiments.results.reports.templates import document, fill
from experiments.results.statistics import csv_of, number, with_margin

Row = dict[str, Any]
_WIDTH, _HEIGHT = 220, 18  # of the picture of an effect, in pixels


def write(folder: Path, rows: list[Row], about: dict[str, Any]) -> Path:
    """Writes the ledger into ``folder`` and returns the path of its page.

    ``about["setup"]`` says of each study, by name, how its models were trained.
    """
    everything = {"rule": RULE, "correction": CORRECTION, "about": about, "claims": rows}
    # Numbers that are not finite are words in JSON.
    python_json = json.dumps(everything, default=str)
    data = json.loads(python_json, parse_constant=lambda word: str(float(word)))
    body = fill(
        "ledger.html",
        counts=counts(rows),
        corrected=counts(rows, "after_correction"),
        rows=[_in_words(claim) for claim in data["claims"]],
        untestable=UNTESTABLE,
        **{key: data[key] for key in ("rule", "correction", "about")},
    )
    effects = [
        {f"claim_{key}": row[key] for key in ("name", "verdict", "after_correction")} | effect
        for row in rows
        for effect in row["effects"]
    ]
    table = csv_of(effects, effects[0])
    page = document("Published claims", body, "broad")
    write_files(folder, {"claims.html": page, "claims.csv": table})
    write_json(folder / "claims.json", data)
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
    numbers = {word: sum(row[column] == word for row in rows) for word in WORDS}
    return ", ".join(f"{count} {word}" for word, count in numbers.items() if count)


def _in_words(claim: Row) -> Row:
    """Returns a claim with its effects in words, and with our number.

    That is the first one that decides the verdict, and how many are as predicted.
    """
    row = claim | {"effects": list(map(_effect, claim["effects"]))}
    effects = [effect for effect in row["effects"] if effect["verdict"] != MISSING]
    if not effects:
        return row | {"ours": "no run has this yet"}
    needs = [effect for effect in effects if effect["is_need"]]
    deciding = needs if row["verdict"] == UNTESTABLE else effects
    first = next((e for e in deciding if e["verdict"] == row["verdict"]), None)
    first = first or next((e for e in deciding if e["verdict"] != REPRODUCED), deciding[0])
    words = f"{first['says']}: {first['found']}"
    if len(effects) > 1:
        agree = sum(effect["verdict"] == REPRODUCED for effect in effects)
        words += f"; {agree} of {len(effects)} numbers are as predicted"
    return row | {"ours": words}


def _effect(effect: Row) -> Row:
    """Returns an effect with its words and its picture."""
    keys = ("low", "high", "mean", "margin", "seeds", "p_corrected")
    values = {key: float(effect[key]) for key in keys}
    predicted = " and ".join(
        f"{word} {number(values[bound])}"
        for word, bound in ((">", "low"), ("<", "high"))
        if math.isfinite(values[bound])
    )
    if effect["verdict"] == MISSING:
        words, picture = effect["why"], None
    else:
        seeds = "1 seed" if values["seeds"] == 1 else f"{values['seeds']:.0f} seeds"
        words = f"{with_margin(values['mean'], values['margin'])} ({seeds})"
        picture = _picture(values)
    p = "" if math.isnan(values["p_corrected"]) else number(values["p_corrected"])
    return effect | {"predicted": predicted, "found": words, "picture": picture, "p": p}


def _picture(effect: dict[str, float]) -> dict[str, float] | None:
    """Returns the places of an interval and of the predicted range, on a scale of its own."""
    mean, margin = effect["mean"], 0.0 if math.isnan(effect["margin"]) else effect["margin"]
    if not math.isfinite(mean):
        return None
    places = {"low": effect["low"], "high": effect["high"], "mean": mean}
    places |= {"begin": mean - margin, "end": mean + margin}
    marks = list(filter(math.isfinite, places.values()))
    room = 0.15 * (max(marks) - min(marks)) or 1.0
    ends = min(marks) - room, max(marks) + room
    drawn = {key: round(float(np.interp(x, ends, (0, _WIDTH))), 1) for key, x in places.items()}
    return drawn | {"width": _WIDTH, "height": _HEIGHT}
