"""Defines published claims, the effects that test them, and the rule for verdicts."""

import dataclasses
import math
import statistics
from collections.abc import Callable, Mapping
from typing import Any, Literal

from experiments.results.panels import ANSWERS, EXACT, Panel, PanelStudy
from experiments.results.statistics import Cell, Study, margin_of, mean_and_stderr, or_nan, quotient

Word = Literal["reproduced", "not reproduced", "inconclusive at this scale", "missing"]
WORDS: tuple[Word, ...] = (
    "reproduced",
    "not reproduced",
    "inconclusive at this scale",
    "missing",
)


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


def mean(*each: Seeds) -> Seeds:
    """Returns the mean of several numbers, seed by seed."""
    return _over(statistics.fmean, each)


def least(*each: Seeds) -> Seeds:
    """Returns the least of several numbers, seed by seed."""
    return _over(min, each)


def _over(function, each) -> Seeds:
    shared = set.intersection(*map(set, each))
    return Seeds({s: function([one[s] for one in each]) for s in sorted(shared)})


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

    def bits(self, study: str, scheme: str, multiple: float) -> Seeds:
        """Returns bits per byte at ``multiple`` times the training length.

        Args:
          study: the name of a study on text.
          scheme: the scheme.
          multiple: length of the context over the training length.

        Raises:
          MissingRunError: there is no such record yet.
        """
        where = dict(scheme=scheme, split="test", protocol=self.protocol, multiple=multiple)
        return self.read(study, "bits_per_byte", **where)

    def recent_bits(self, study: str, scheme: str) -> Seeds:
        """Returns bits per byte of a model that is fed only its most recent tokens.

        The model is fed at most as many tokens as in training. The same scored tokens in texts of
        the trained length are no substitute, because the first of them have almost no context. If
        all tokens of a text count, texts of the trained length are used nevertheless.
        """
        if self.protocol != "last":
            return self.bits(study, scheme, 1)
        where = dict(scheme=scheme, split="test", protocol="windowed", multiple=1)
        return self.read(study, "bits_per_byte", **where)

    def exact(self, study: str, scheme: str, task: str, multiple: int) -> Seeds:
        """Returns the share of rows whose answers are all right; arguments are as in ``bits``."""
        return self._share(EXACT, study, scheme, task, multiple)

    def hits(self, study: str, scheme: str, task: str, multiple: int) -> Seeds:
        """Returns the share of answers that are right; arguments are as in ``bits``.

        Each answer is read after the right answers before it. Unlike ``exact``, this share tells
        schemes apart even if they have no whole row right.
        """
        metric = ANSWERS if (task, ANSWERS) in self._panels(study) else EXACT
        return self._share(metric, study, scheme, task, multiple)

    def _share(self, metric, study, scheme, task, multiple) -> Seeds:
        panel = self._panels(study).get((task, metric))
        if panel is None:
            raise MissingRunError(f"there is no study {study} of the task {task}")
        where = {"condition": task, "metric": metric, "x": multiple * int(panel.trained[0])}
        return self.read(study, "value", scheme=scheme, **where)

    def _panels(self, study) -> dict[tuple[str, str], Panel]:
        """Returns the panels of a study of tasks, by task and metric."""
        found = self.studies.get(study)
        panels = found.panels if isinstance(found, PanelStudy) else ()
        return {(panel.condition, panel.metric): panel for panel in panels}

    def read(self, study: str, key: str, **where: Any) -> Seeds:
        """Returns the field ``key`` of the records with the fields ``where``, one for each seed."""
        if study not in self.studies:
            raise MissingRunError(f"there is no study {study}")
        records = [
            r
            for r in self.studies[study].records
            if all(r.get(field) == value for field, value in where.items())
        ]
        if not records:
            words = ", ".join(f"{field} {value}" for field, value in where.items())
            raise MissingRunError(f"the study {study} has no result yet of {words}")
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
      made_at: the scale at which it was made.
      schemes: the schemes that it is about.
      effects: the numbers that are measured.
      needs: effects without which the others say nothing, such as that a task is learned.
      is_of_text: whether the effects change with the tokens that count, so that both are shown.
    """

    name: str
    says: str
    source: str
    made_at: str
    schemes: tuple[str, ...]
    effects: tuple[Effect, ...]
    needs: tuple[Effect, ...] = ()
    is_of_text: bool = True


RULE = (
    "A claim is written as numbers, each with the range in which it is said to lie. The claim is "
    "reproduced where the 95 % interval over seeds of every number (Student's t, each seed with "
    "itself) lies within its range and does not touch its ends. It is not reproduced where any "
    "interval lies wholly outside. In all other cases it is inconclusive at this scale, also where "
    "a seed has no finite number, or where what the claim needs first is not seen. No interval is "
    "widened for the count of claims. docs/experiments.md lists the claims that were changed after "
    "results had been seen."
)


def decide(effect: Effect, cell: Cell) -> Word:
    """Returns the verdict on one number by ``RULE``."""
    value, margin = cell[0], margin_of(cell)
    if margin is None:
        return "inconclusive at this scale"
    if effect.low < value - margin and value + margin < effect.high:
        return "reproduced"
    if value + margin < effect.low or effect.high < value - margin:
        return "not reproduced"
    return "inconclusive at this scale"


def judge(claim: Claim, answers: Answers) -> dict[str, Any]:
    """Returns the verdict on a claim, and on each of its numbers, as plain data."""
    needs, effects = (_judged(each, answers) for each in (claim.needs, claim.effects))
    verdict = _worst([row["verdict"] for row in effects])
    if verdict != "missing" and any(row["verdict"] != "reproduced" for row in needs):
        verdict = "inconclusive at this scale"
    needs = [row | {"says": f"needed first: {row['says']}"} for row in needs]
    return {"verdict": verdict, "effects": [*needs, *effects]}


def _judged(effects: tuple[Effect, ...], answers: Answers) -> list[dict[str, Any]]:
    rows = []
    for effect in effects:
        row: dict[str, Any] = {"says": effect.says, "low": effect.low, "high": effect.high}
        try:
            cell = mean_and_stderr(effect.of(answers).values())
        except MissingRunError as error:
            row |= {"verdict": "missing", "why": str(error)}
        else:
            row |= {"mean": cell[0], "margin": margin_of(cell), "seeds": cell[2]}
            row["verdict"] = decide(effect, cell)
        rows.append(row)
    return rows


def _worst(verdicts: list[Word]) -> Word:
    for word in ("missing", "not reproduced", "inconclusive at this scale"):
        if word in verdicts:
            return word
    return "reproduced"


def ledger_of(claims: tuple[Claim, ...], studies: Mapping[str, Study]) -> list[dict[str, Any]]:
    """Returns the verdicts on all claims, as plain data.

    A claim on text also has ``all_tokens``: the verdict if all tokens of a text count and not the
    last alone.
    """
    rows = []
    for claim in claims:
        about = ("name", "says", "source", "made_at", "schemes")
        row = {key: getattr(claim, key) for key in about} | judge(claim, Answers(studies))
        if claim.is_of_text:
            row["all_tokens"] = judge(claim, Answers(studies, "non_overlapping"))
        rows.append(row)
    return rows
