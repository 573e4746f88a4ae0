"""Holds what the index of the atlas and the pages of its schemes share."""

import math
from typing import Any

import pandas as pd

from experiments.results.answers import TASKS
from experiments.results.atlas import Atlas
from experiments.results.statistics import number

MARKS = {"better": "▲", "worse": "▼", "no difference": "·", "the same": "="}
UNCLEAR = "?"  # the mark of a comparison that says nothing, such as of one seed
COLOURS_OF = {"better": "#cfe3f5", "worse": "#f8d5c0", "no difference": "#fff", "the same": "#fff"}

STYLE = """
body { max-width: none } .text-column { max-width: 1100px }
.filters { display: flex; flex-wrap: wrap; gap: .6rem 1.2rem; margin: 1rem 0; align-items: center }
.filters input[type=search], .filters select { font: inherit; padding: .2rem .4rem }
th button { font: inherit; font-weight: 600; border: 0; background: none; padding: 0;
  cursor: pointer; text-align: inherit; color: inherit }
th button:focus-visible { outline: 2px solid #0072b2 }
th[aria-sort=ascending] button::after { content: " ↑" }
th[aria-sort=descending] button::after { content: " ↓" }
#matrix { overflow: auto; max-height: 85vh; border: 1px solid #ddd }
#matrix thead th { position: sticky; top: 0; background: #fff; z-index: 1 }
#matrix thead th:first-child { left: 0; z-index: 2 }
#matrix tbody th { vertical-align: middle } svg { min-width: 0; max-width: 46rem }
#matrix td small { display: block } [hidden] { display: none !important }
.map svg { min-width: 600px } @media (max-width: 600px) { #matrix :is(th, td) { padding: .2rem } }
"""

Rows = dict[tuple[str, str], dict[str, Any]]  # of ``Atlas.rows``


def mean_losses(atlas: Atlas, topic: str) -> pd.DataFrame:
    """Returns the mean losses of a topic by scheme and length; one that is not finite is NaN."""
    rows = atlas.answers[atlas.answers["topic"] == topic]
    means = rows.pivot(index="scheme", columns="multiple", values="mean")
    return means.replace(math.inf, math.nan)


def is_shown(row: dict[str, Any]) -> bool:
    """Says whether an answer counts: not one to longer rows of a task that was not learned."""
    return row["learned"] or row["multiple"] == 1


def spread(row: dict[str, Any]) -> str:
    """Returns how far seeds are apart: how many have solved a task, else half of the interval."""
    if row["family"] == TASKS:
        return "" if math.isnan(row["solved"]) else f"{row['solved']:.0f} of {row['seeds']} seeds"
    return "" if math.isnan(row["margin"]) else f"±{number(row['margin'], row['mean'])}"
