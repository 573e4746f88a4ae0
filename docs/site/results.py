"""Reads what the experiments found about schemes."""

import json
import math
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.results import atlas_data
from experiments.results.answers import MARKS, OWN_WINDOW, shown
from experiments.results.atlas import PARAMETERS
from experiments.results.lengths import WINDOWED
from experiments.results.reports import trust
from experiments.results.statistics import with_margin

DOCS = Path(__file__).parents[1]
NOT_LEARNED = "not learned"


@cache
def answers() -> pd.DataFrame:
    """Returns the answers of the atlas, with a column ``cell`` of what a table shows."""
    rows = atlas_data.read(DOCS / "atlas")
    return rows.assign(cell=[_cell(row) for row in rows.to_dict("records")])


def of_scheme(name: str) -> pd.DataFrame:
    """Returns a row for each topic and unit, with the answers to it and how far to trust them.

    The columns are the multiples of the trained length, and "trust": the badges at the largest one.
    """
    rows = answers()[answers()["scheme"] == name].astype({"multiple": int})
    table = rows.pivot_table(
        index=["topic", "unit"], columns="multiple", values="cell", aggfunc="first", sort=False
    )[sorted(rows["multiple"].unique())].fillna("-")
    longest = rows.groupby("topic")["multiple"].max()
    trusted = trust.read(DOCS / "atlas" / trust.JSON)
    table["trust"] = [
        trust.words(trusted.get((topic, longest[topic]), [])) for topic, _ in table.index
    ]
    return table


def _cell(row: dict[str, Any]) -> str:
    if not row["learned"]:
        return NOT_LEARNED
    if math.isnan(row["mean"]):
        return "-"
    if row["topic"] == PARAMETERS:
        return f"{row['mean']:,.0f}"
    told = with_margin(row["mean"], row["margin"])
    if math.isfinite(row["solved"]):
        return f"{told}, {shown(row)} seeds"
    against = OWN_WINDOW if row["topic"].startswith("gain") else WINDOWED
    return f"{told} {MARKS.get(row[f'vs_{against}'], '')}".rstrip()


def setup() -> str:
    """Returns a sentence on how the models of the atlas were trained."""
    return json.loads((DOCS / "atlas/atlas.json").read_text())["about"]["setup"]


@cache
def claims() -> list[dict[str, Any]]:
    """Returns the published claims that were tested, with their verdicts."""
    return json.loads((DOCS / "claims/claims.json").read_text())["claims"]
