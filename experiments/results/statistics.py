"""Holds records of every kind of experiment, and computes the statistics of their seeds."""

import csv
import dataclasses
import io
import math
import statistics
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import special

Record = dict[str, Any]
BASELINE = "nope"
CELL = ["scheme", "x", "mean", "margin", "seeds"]  # the columns of ``cells_of``


class Cell(NamedTuple):
    """Holds a mean over seeds, half of its 95 % interval, NaN if not known, and their number."""

    mean: float
    margin: float
    seeds: int


@dataclasses.dataclass(frozen=True)
class Study:
    """Holds everything that a report is made from, except pictures.

    Attributes:
      records: one for each number that was measured; each has ``scheme`` and ``seed``.
      training: ``scheme, seed, steps, tokens, seconds, final_loss, parameters, trained``; the last
        is the scheme that the checkpoint was trained with. If there is a baseline, ``speedup`` and
        ``speedup_above`` too, see ``results/speedup.py``.
      failures: ``scheme, seed, reason`` of the runs that failed.
      about: ``command, versions, device, git, config, date, rules, rates``, and the other fields
        that the report of this kind of experiment needs; ``holes``, what finished runs lack.
    """

    records: list[Record]
    training: list[Record]
    failures: list[Record]
    about: dict[str, Any]

    def check(self) -> None:
        """Raises a ValueError if the study has no records and knows of no failures."""
        if not self.records and not self.failures:
            raise ValueError(
                "no point has a result, so there is nothing to report: the same command with "
                "--status says what each point waits for"
            )

    @property
    def seeds(self) -> str:
        """Returns the seeds of all records, as words."""
        return ", ".join(map(str, sorted({r["seed"] for r in self.records}))) or "none"


def by_seed(records: Iterable[Record], column: str, metric: str, what: str) -> pd.DataFrame:
    """Returns ``scheme, seed, x, value`` of each record, where x is what it has in ``column``.

    A value of ``metric`` that is not finite is inf. Raises a ValueError, which names the table by
    ``what``, if two records claim one measurement.
    """
    records = list(records)
    rows = pd.DataFrame(
        {
            "scheme": [r["scheme"] for r in records],
            "seed": [r["seed"] for r in records],
            "x": [r[column] for r in records],
            "value": [or_nan(r[metric]) for r in records],
        }
    )
    rows["value"] = rows["value"].where(np.isfinite(rows["value"]), math.inf)
    twice = rows[rows.duplicated(["scheme", "seed", "x"])]
    if len(twice):
        scheme, seed, x, _ = twice.iloc[0]
        raise ValueError(
            f"two records of {scheme}, seed {seed}, {what}, {column} {x}: "
            "counted twice they would shrink the interval; keep one"
        )
    return rows


def over_seeds(rows: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Returns ``mean, margin, seeds`` by ``keys``, from the ``value`` of a row for each seed.

    ``mean_and_margin`` defines them. The values are numbers or inf.
    """
    groups = rows.groupby(keys, sort=False)["value"]
    table = groups.agg(mean="mean", margin="sem", seeds="size").reset_index()
    table["margin"] *= special.stdtrit(np.maximum(table["seeds"] - 1, 1), 0.975)
    table.loc[np.isinf(table["mean"]), "margin"] = math.nan
    return table


def cells_of(rows: pd.DataFrame) -> pd.DataFrame:
    """Returns the cells of a table, with the columns ``CELL``, from the rows of ``by_seed``."""
    return over_seeds(rows, ["scheme", "x"])


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


def quotient(part: float, whole: float) -> float:
    """Returns a part over the whole, or NaN if that is 0."""
    return part / whole if whole else math.nan


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


def csv_of(records: Iterable[Record], columns: Iterable[str]) -> str:
    """Returns the fields ``columns`` of records as CSV."""
    table = io.StringIO(newline="")
    rows = csv.DictWriter(table, list(columns), lineterminator="\n", extrasaction="ignore")
    rows.writeheader()
    rows.writerows(records)
    return table.getvalue()


def failure_words(failure: Mapping[str, Any]) -> str:
    """Returns one line about a run that failed."""
    return "failed: {scheme}, seed {seed}: {reason}".format(**failure)
