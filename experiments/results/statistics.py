"""Computes statistics over seeds, and writes numbers."""

import math
import statistics
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import special

Record = dict[str, Any]
BASELINE = "nope"


class Cell(NamedTuple):
    """Holds a mean over seeds, half of its 95 % interval, NaN if not known, and their number."""

    mean: float
    margin: float
    seeds: int


def over_seeds(rows: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Returns ``mean, margin, seeds`` by ``keys``, from the ``value`` of a row for each seed.

    ``mean_and_margin`` defines them. The values are numbers or inf.
    """
    groups = rows.groupby(keys, sort=False)["value"]
    table = groups.agg(mean="mean", margin="sem", seeds="size").reset_index()
    table["margin"] *= special.stdtrit(np.maximum(table["seeds"] - 1, 1), 0.975)
    table.loc[np.isinf(table["mean"]), "margin"] = math.nan
    return table


def or_nan(value: float | None) -> float:
    """Returns a number of JSON, which has None for one that is not finite, as a float."""
    return math.nan if value is None else float(value)


def best_first(cells: pd.DataFrame, x: Any, is_error: bool = True) -> pd.DataFrame:
    """Returns cells by scheme, the one that is best in the column ``x`` first.

    Schemes without a finite mean there come last, and equal ones in the order of their names.
    """
    place = cells[cells["x"] == x].set_index("scheme")["mean"] * (1 if is_error else -1)
    place = place.where(np.isfinite(place), math.inf)
    place = place.reindex(sorted(cells["scheme"].unique()), fill_value=math.inf)
    order = place.sort_values(kind="stable").index
    return cells.set_index("scheme").loc[order].reset_index()


def mean_and_margin(values: Iterable[float]) -> Cell:
    """Returns the mean of the seeds, half of its 95 % interval, and their number.

    The interval is Student's, and its half is NaN for one seed. A value that is not finite makes
    the mean inf, so that the scheme is never the best and sorts last.
    """
    known = list(values)
    if not known or not all(map(math.isfinite, known)):
        return Cell(math.inf, math.nan, len(known))
    if len(known) == 1:
        return Cell(known[0], math.nan, 1)
    stderr = statistics.stdev(known) / len(known) ** 0.5
    return Cell(statistics.fmean(known), stderr * quantile(len(known)), len(known))


def quantile(seeds: int) -> float:
    """Returns how many standard errors of a mean over seeds are half of its 95 % interval."""
    return float(special.stdtrit(seeds - 1, 0.975))


def number(value: float, like: float | None = None) -> str:
    """Returns ``value`` with as many decimals as suit ``like``, by default ``value`` itself."""
    size = abs(value if like is None else like)
    if not math.isfinite(value):
        return "not finite"
    if 0 < size < 1e-3:
        return f"{value:.1e}"
    digits = 3 if size < 10 else 2 if size < 100 else 1 if size < 1000 else 0
    # The option z avoids "-0".
    return f"{value:z,.{digits}f}" if size < 1e5 else f"{value:.1e}"


def with_margin(mean: float, margin: float) -> str:
    """Returns a mean and its margin, NaN for none, with as many decimals as suit both."""
    if math.isnan(margin):
        return number(mean)
    size = max(abs(mean), margin)
    return f"{number(mean, size)} ± {number(margin, size)}"
