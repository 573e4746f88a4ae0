"""Defines published claims, the effects that test them, and the rule for verdicts."""

import dataclasses
import math
import statistics
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

import pandas as pd
from scipy import special

from experiments.results.comparisons import Q, corrected
from experiments.results.panels import ANSWERS, EXACT, PanelStudy
from experiments.results.statistics import Cell, Study, mean_and_margin, or_nan, quantile, quotient

Word = Literal[
    "reproduced", "not reproduced", "mixed or underpowered", "untestable at this scale", "missing"
]
WORDS: tuple[Word, ...] = get_args(Word)
REPRODUCED, NOT_REPRODUCED, MIXED, UNTESTABLE, MISSING = WORDS


class MissingRunError(LookupError):
    """Says which run an effect needs that has no result yet."""


class Seeds(dict[int, float]):
    """Holds one number per seed; arithmetic is seed by seed, over seeds that both sides have."""

    def __sub__(self, other: "Seeds | float") -> "Seeds":
        return self._with(other, lambda a, b: a - b)

    def __truediv__(self, other: "Seeds | float") -> "Seeds":
        return self._with(other, quotient)

    def _with(self, other, function):
        values = other if isinstance(other, Seeds) else dict.fromkeys(self, other)
        return Seeds({s: function(self[s], values[s]) for s in self if s in values})


def mean(*answers: Seeds) -> Seeds:
    """Returns the mean of several numbers, seed by seed."""
    return _over(statistics.fmean, answers)


def least(*answers: Seeds) -> Seeds:
    """Returns the least of several numbers, seed by seed."""
    return _over(min, answers)


def most(*answers: Seeds) -> Seeds:
    """Returns the largest of several numbers, seed by seed."""
    return _over(max, answers)


def _over(function, answers) -> Seeds:
    shared = set.intersection(*map(set, answers))
    return Seeds({s: function([one[s] for one in answers]) for s in sorted(shared)})


def spread(of: Seeds) -> Seeds:
    """Returns how far each seed is from the median of all."""
    middle = statistics.median(of.values())
    return Seeds({s: abs(value - middle) for s, value in of.items()})


@dataclasses.dataclass(frozen=True)
class Answers:
    """Reads the numbers of finished studies, by seed.

    Attributes:
      studies: the studies by name.
      protocol: which tokens of a text count, "last" or "non_overlapping" for all of them.
    """

    studies: Mapping[str, Study]
    protocol: str = "last"

    def bits(self, study: str, scheme: str, multiple: float, protocol: str = "") -> Seeds:
        """Returns bits per byte of a scheme at ``multiple`` times the training length.

        Raises a MissingRunError if there is no such record yet.
        """
        protocol = protocol or self.protocol
        where = dict(scheme=scheme, split="test", protocol=protocol, multiple=multiple)
        return self.read(study, "bits_per_byte", **where)

    def rung_bits(self, study: str, scheme: str, multiple: float, protocol: str = "") -> Seeds:
        """Returns bits per byte on a rung of the ladder, the mean over its kinds of text."""
        where = dict(scheme=scheme, protocol=protocol or self.protocol, multiple=multiple)
        records = self.studies[study].records if study in self.studies else []
        splits = sorted({r["split"] for r in records if "split" in r}) or ["code"]
        return mean(*(self.read(study, "bits_per_byte", split=s, **where) for s in splits))

    def recent_bits(self, study: str, scheme: str) -> Seeds:
        """Returns bits per byte of a model that is fed only its most recent tokens, as in training.

        The same tokens in texts of the trained length are no substitute, because the first of them
        have almost no context. If all tokens of a text count, such texts are used nevertheless.
        """
        return self.bits(study, scheme, 1, "windowed" if self.protocol == "last" else "")

    def hits(self, scheme: str, task: str, multiple: int) -> Seeds:
        """Returns the share of answers that are right, of models that learn all tasks together.

        Each answer is read after the right answers before it. Unlike the share of rows, this one
        tells schemes apart even if they have no whole row right.
        """
        part = self.studies.get("tasks")
        panels = part.panels if isinstance(part, PanelStudy) else ()
        of_task = {panel.metric: panel for panel in panels if panel.condition == task}
        if not of_task:
            raise MissingRunError(f"no data yet: there is no study tasks of the task {task}")
        metric = ANSWERS if ANSWERS in of_task else EXACT
        x = multiple * int(of_task[metric].trained[0])
        return self.read("tasks", "value", scheme=scheme, condition=task, metric=metric, x=x)

    def alone(
        self, task: str, scheme: str, multiple: int, metric: str = ANSWERS, rows: str = ""
    ) -> Seeds:
        """Returns a share of models that learned one task alone, see ``configs/learned.py``.

        The ``metric`` is ``ANSWERS`` for the share of answers, or ``EXACT`` for the share of rows
        whose answers are all right; ``rows`` is the task of the rows, if it is another one.
        """
        study = f"learned/{task}"
        records = self.studies[study].records if study in self.studies else []
        tokens = multiple * min((record["x"] for record in records), default=0)
        where = {"scheme": scheme, "condition": rows or task, "metric": metric, "x": tokens}
        return self.read(study, "value", **where)

    def turning_pairs(self, study: str, scheme: str) -> Seeds:
        """Returns how many channel pairs of a rotary scheme turn within the trained length."""
        seeds = self.bits(study, scheme, 1)
        about = self.studies[study].about
        rope, length = about["config"]["encodings"][scheme], about["train_length"]
        width = rope["rotary_dim"]
        periods = [2 * math.pi * rope["base"] ** (i / width) for i in range(0, width, 2)]
        return Seeds(dict.fromkeys(seeds, float(sum(period <= length for period in periods))))

    def read(self, study: str, key: str, **where: Any) -> Seeds:
        """Returns the field ``key`` of the records with the fields ``where``, one for each seed."""
        if study not in self.studies:
            raise MissingRunError(f"no data yet: there is no study {study}")
        records = [
            r
            for r in self.studies[study].records
            if all(r.get(field) == value for field, value in where.items())
        ]
        if not records:
            words = ", ".join(f"{field} {value}" for field, value in where.items())
            command = self.studies[study].about.get("command", "").replace(" --report", "")
            made_by = f"; made by {command}" if command else ""
            raise MissingRunError(f"no data yet in {study} of {words}{made_by}")
        seeds = Seeds({r["seed"]: or_nan(r[key]) for r in records})
        if len(seeds) < len(records):
            raise ValueError(f"{study} has several results of one seed where {where}")
        return seeds


@dataclasses.dataclass(frozen=True)
class Effect:
    """Describes a number that a claim predicts.

    Attributes:
      says: what the number is, with its unit.
      of: computes the number from the answers, for each seed.
      low, high: the range that the claim predicts.
    """

    says: str
    of: Callable[[Answers], Seeds]
    low: float = -math.inf
    high: float = math.inf


@dataclasses.dataclass(frozen=True)
class Claim:
    """Describes a claim of a paper, and the effects that must all be seen if it holds.

    Attributes:
      name: a name that no other claim has.
      says: the claim, as a sentence.
      source: the paper.
      made_at: the scale at which it was made, and what was measured there.
      schemes: the schemes that it is about.
      effects: the numbers that are measured.
      needs: effects without which the others say nothing, such as that a task is learned.
      scale_needed: what it takes to see them, in words, if there are any.
      note: how the numbers are to be read, in words.
    """

    name: str
    says: str
    source: str
    made_at: str
    schemes: tuple[str, ...]
    effects: tuple[Effect, ...]
    needs: tuple[Effect, ...] = ()
    scale_needed: str = ""
    note: str = ""


RULE = (
    "A claim is written as numbers, each with the range in which it is said to lie. The claim is "
    "reproduced where the 95 % interval over seeds of every number (Student's t, each seed with "
    "itself) lies within its range and does not touch its ends. It is not reproduced where any "
    "interval lies wholly outside. It is untestable at this scale where something that it needs "
    "first lies wholly outside, such as that a task is learned. In all other cases it is mixed or "
    "underpowered, also where a seed has no finite number. docs/experiments.md lists the claims "
    "that were changed after results had been seen."
)
CORRECTION = (
    "This rule widens no interval for the count of numbers. What follows if it does is said beside "
    "it, after correction: each p value tests the nearest end of the range; all are corrected "
    f"together by Benjamini and Hochberg, to a false discovery rate of q = {Q:g}. Numbers that are "
    "the same for every seed have none."
)


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


def effects_of(claims: tuple[Claim, ...], answers: Answers) -> pd.DataFrame:
    """Returns a row for each number of each claim.

    The columns are ``claim``; ``is_need``, whether other numbers need this one first; ``says, low,
    high, mean, margin, seeds, p, verdict``; ``why`` the number is missing; and ``p_corrected`` and
    ``after_correction``, see ``CORRECTION``.
    """
    table = pd.DataFrame(
        {"claim": claim.name, "is_need": is_need} | _measured(effect, answers)
        for claim in claims
        for is_need, effects in ((True, claim.needs), (False, claim.effects))
        for effect in effects
    )
    table["p_corrected"] = corrected(table["p"], pd.Series("all claims", table.index))
    is_lost = (table["p"] <= 0.05) & (table["p_corrected"] > Q)
    table["after_correction"] = table["verdict"].mask(is_lost, MIXED)
    return table


def _measured(effect: Effect, answers: Answers) -> dict[str, Any]:
    row: dict[str, Any] = {"says": effect.says, "low": effect.low, "high": effect.high}
    row |= dict.fromkeys(("mean", "margin", "seeds", "p"), math.nan) | {"why": ""}
    try:
        cell = mean_and_margin(effect.of(answers).values())
    except MissingRunError as error:
        return row | {"verdict": MISSING, "why": str(error)}
    mean, margin, seeds = cell
    row |= {"mean": mean, "margin": margin, "seeds": seeds}
    return row | {"p": p_value(effect, cell), "verdict": decide(effect, cell)}


def verdict(effects: pd.DataFrame, column: str = "verdict") -> Word:
    """Returns the verdict on one claim from its rows of ``effects_of``, by ``RULE``."""
    needs = set(effects.loc[effects["is_need"], column])
    words = set(effects.loc[~effects["is_need"], column])
    if MISSING in words | needs or not words:
        return MISSING
    if NOT_REPRODUCED in needs:
        return UNTESTABLE
    if NOT_REPRODUCED in words and MIXED not in needs:
        return NOT_REPRODUCED
    return MIXED if MIXED in words | needs else REPRODUCED


def ledger_of(claims: tuple[Claim, ...], studies: Mapping[str, Study]) -> list[dict[str, Any]]:
    """Returns the verdicts on all claims, as plain data.

    A claim has ``verdict, after_correction``; its fields that are words; ``effects``, its rows of
    ``effects_of``; and, if its numbers depend on the tokens of a text that count, ``all_tokens``,
    the verdict if all of them count.
    """
    protocols = ("last", "non_overlapping")
    tables = [effects_of(claims, Answers(studies, protocol)) for protocol in protocols]
    about = ("name", "says", "source", "made_at", "schemes", "scale_needed", "note")
    rows = []
    for claim in claims:
        effects, in_all = (table[table["claim"] == claim.name] for table in tables)
        row: dict[str, Any] = {key: getattr(claim, key) for key in about}
        row |= {"verdict": verdict(effects)}
        row |= {"after_correction": verdict(effects, "after_correction")}
        row |= {"effects": effects.drop(columns="claim").to_dict("records")}
        numbers, others = (t.loc[~t["is_need"], ["mean", "why"]] for t in (effects, in_all))
        if not numbers.equals(others):
            row["all_tokens"] = verdict(in_all)
        rows.append(row)
    return rows
