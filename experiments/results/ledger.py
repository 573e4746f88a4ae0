"""Defines published claims as numbers with ranges, and the rule that decides on them."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import pandas as pd
from scipy import special

from experiments.results.comparisons import Q, corrected
from experiments.results.statistics import Cell, Record, mean_and_margin, or_nan, quantile
from experiments.results.table import tidy

Word = Literal["reproduced", "not reproduced", "mixed or underpowered", "missing"]
REPRODUCED: Word = "reproduced"
NOT_REPRODUCED: Word = "not reproduced"
MIXED: Word = "mixed or underpowered"
MISSING: Word = "missing"

RULE = (
    "A claim is written as numbers, each with the range in which it is said to lie. The claim is "
    "reproduced where the 95 % interval over seeds of every number (Student's t, each seed with "
    "itself) lies within its range. It is not reproduced where any interval lies wholly outside, "
    "and else mixed or underpowered. After correction means that the p values of all numbers are "
    f"one family (Benjamini and Hochberg, q = {Q:g}); each tests the nearest end of the range."
)


class MissingRunError(LookupError):
    """Says which run a number needs that has no result yet."""


@dataclasses.dataclass(frozen=True)
class Answers:
    """Reads the numbers of finished studies, one for each seed.

    Attributes:
      records: the records of each study, by its name.
      filled_by: the command that makes the records of a study that is only read.
    """

    records: Mapping[str, list[Record]]
    filled_by: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def bits(self, study: str, scheme: str, multiple: float, protocol: str = "last") -> pd.Series:
        """Returns bits per byte at a multiple of the trained length.

        The texts are those of the test split, or of all splits where there is no such one.
        """
        splits = {record["split"] for record in self.records.get(study, ()) if "split" in record}
        where = dict(scheme=scheme, protocol=protocol, multiple=multiple)
        chosen = ["test"] if "test" in splits or not splits else sorted(splits)
        of_splits = [self.read(study, "bits_per_byte", split=s, **where) for s in chosen]
        return pd.concat(of_splits, axis=1, join="inner").mean(axis=1, skipna=False)

    def recent_bits(self, study: str, scheme: str) -> pd.Series:
        """Returns bits per byte of a model that is fed only its most recent tokens."""
        return self.bits(study, scheme, 1, "windowed")

    def read(self, study: str, key: str, **where: Any) -> pd.Series:
        """Returns the field ``key`` of the records with the fields ``where``, by seed.

        Raises a MissingRunError if there are none.
        """
        found = {
            record["seed"]: or_nan(record[key])
            for record in self.records.get(study, ())
            if all(record.get(field) == value for field, value in where.items())
        }
        if not found:
            words = ", ".join(f"{field} {value}" for field, value in where.items())
            command = self.filled_by.get(study)
            made_by = f"; made by {command}" if command else ""
            raise MissingRunError(f"no data yet in {study} of {words}{made_by}")
        return pd.Series(found)


@dataclasses.dataclass(frozen=True)
class Effect:
    """Describes a number that a claim predicts.

    Attributes:
      says: what the number is, with its unit.
      of: computes the number from the answers, for each seed.
      low, high: the range that the claim predicts.
    """

    says: str
    of: Callable[[Answers], pd.Series]
    low: float = -math.inf
    high: float = math.inf


@dataclasses.dataclass(frozen=True)
class Claim:
    """Describes a claim of a paper, and the numbers that must all be seen if it holds.

    Attributes:
      name: a name that no other claim has.
      says: the claim, as a sentence.
      source: the paper.
      made_at: the scale at which it was made, and what was measured there.
      schemes: the schemes that it is about.
      effects: the numbers that are measured.
    """

    name: str
    says: str
    source: str
    made_at: str
    schemes: tuple[str, ...]
    effects: tuple[Effect, ...]


def decide(effect: Effect, cell: Cell) -> Word:
    """Returns the verdict on one number by ``RULE``."""
    value, margin, _ = cell  # no comparison with a NaN holds
    if effect.low < value - margin and value + margin < effect.high:
        return REPRODUCED
    if value + margin < effect.low or effect.high < value - margin:
        return NOT_REPRODUCED
    return MIXED


def p_value(effect: Effect, cell: Cell) -> float:
    """Returns the p value of the number lying on the end of its range that is nearest.

    It is below 0.05 where the verdict on the number is not mixed, and NaN where seeds do not differ
    or are too few.
    """
    value, margin, seeds = cell
    if not margin or not math.isfinite(value):
        return math.nan
    distance = min(abs(value - end) for end in (effect.low, effect.high))
    return 2 * float(special.stdtr(seeds - 1, -distance * quantile(seeds) / margin))


def measured(claims: Iterable[Claim], answers: Answers) -> tuple[pd.DataFrame, list[str]]:
    """Returns the numbers of all claims by seed as a tidy table, and what is missing for others.

    The scheme of a row is the name of the claim, and the measure is what the number is.
    """
    rows, missing = [], []
    for claim in claims:
        for effect in claim.effects:
            try:
                numbers = effect.of(answers)
            except MissingRunError as error:
                missing.append(f"{claim.name}: {error}")
                continue
            row = {"scheme": claim.name, "measure": effect.says, "x": 1, "unit": ""}
            rows += [row | {"seed": seed, "value": value} for seed, value in numbers.items()]
    return tidy("claims", rows), missing


def tested(claims: Iterable[Claim], frame: pd.DataFrame) -> pd.DataFrame:
    """Returns a row for each number of each claim, from the table of ``measured``.

    The columns are ``claim, claim_says, paper, made_at, schemes``; ``says, low, high, mean, margin,
    seeds, p`` of the number; the verdicts on it, ``verdict, after_correction``; and those on the
    claim, ``claim_verdict, claim_after_correction``.
    """
    values = frame.groupby(["scheme", "measure"])["value"].agg(list)
    rows = []
    for claim in claims:
        for effect in claim.effects:
            cell = mean_and_margin(values.get((claim.name, effect.says), []))
            row: dict[str, Any] = {"claim": claim.name, "claim_says": claim.says}
            row |= {"paper": claim.source, "made_at": claim.made_at}
            row |= {"schemes": " ".join(claim.schemes)}
            row |= {"says": effect.says, "low": effect.low, "high": effect.high}
            word = decide(effect, cell) if cell.seeds else MISSING
            rows.append(row | cell._asdict() | {"p": p_value(effect, cell), "verdict": word})
    table = pd.DataFrame(rows)
    p = corrected(table["p"], pd.Series("all claims", table.index))
    is_lost = (table["p"] <= 0.05) & (p > Q)
    table["after_correction"] = table["verdict"].mask(is_lost, MIXED)
    for column in ("verdict", "after_correction"):
        words = table.groupby("claim")[column].agg(verdict)
        table[f"claim_{column}"] = table["claim"].map(words)
    return table


def verdict(words: Iterable[Word]) -> Word:
    """Returns the verdict on a claim from those on its numbers, by ``RULE``."""
    found = {*words}
    worst_first = (MISSING, NOT_REPRODUCED, MIXED)
    return next((word for word in worst_first if word in found), REPRODUCED)
