"""Holds the atlas: the answer of every scheme to every question, and the verdicts on it."""

import dataclasses
import itertools
import math
import statistics
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from rich.console import Console

from experiments.results.lengths import MAIN, LengthStudy, View
from experiments.results.panels import EXACT, PanelStudy
from experiments.results.reports.page import print_failures, terminal_table
from experiments.results.statistics import (
    BASELINE,
    Cell,
    Record,
    Study,
    by_seed,
    margin_of,
    mean_and_stderr,
)
from posenc_jax import REGISTRY

AGAINST = (BASELINE, "rope")  # whom every scheme is compared with
COST = "training time"
Word = Literal["better", "worse", "no difference", "one seed"]
WORDS: tuple[Word, ...] = ("better", "worse", "no difference", "one seed")


@dataclasses.dataclass(frozen=True)
class Question:
    """Holds one number of every scheme and seed.

    Attributes:
      topic: the name of a task, or of a kind of text.
      multiple: the length over that of training.
      says: what was measured, in words.
      unit: the unit, in words.
      is_error: whether lower is better.
      values: the numbers by scheme and seed.
      chance: the number that a blind guess has, if it is known.
    """

    topic: str
    multiple: float
    says: str
    unit: str
    is_error: bool
    values: dict[str, dict[int, float]]
    chance: float | None = None

    @property
    def name(self) -> str:
        """Returns a name that no other question has."""
        return self.topic if self.topic == COST else f"{self.topic} {self.multiple:g}x"

    def cell(self, scheme: str) -> Cell:
        """Returns the mean over seeds, its standard error and the number of seeds."""
        return mean_and_stderr(self.values.get(scheme, {}).values())


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Says whether a scheme is better than another at a question.

    Attributes:
      word: "better" or "worse" where the 95 % interval of the difference excludes 0, or where one
        of the two diverged under more seeds.
      difference: by how much it is better, the mean over the seeds that both have.
      margin: half the 95 % interval of the difference; None for one seed.
    """

    word: Word
    difference: float
    margin: float | None


def verdict(question: Question, scheme: str, against: str) -> Verdict | None:
    """Compares two schemes seed by seed, or returns None where one of them has no answer."""
    one, other = (question.values.get(name, {}) for name in (scheme, against))
    shared = sorted(one.keys() & other.keys())
    if not shared:
        return None
    diverged, other_diverged = (
        sum(not math.isfinite(seeds[s]) for s in shared) for seeds in (one, other)
    )
    if diverged != other_diverged:
        worse = diverged > other_diverged
        return Verdict("worse" if worse else "better", -math.inf if worse else math.inf, None)
    if diverged:
        return Verdict("no difference", 0.0, None)
    sign = -1 if question.is_error else 1
    cell = mean_and_stderr([sign * (one[seed] - other[seed]) for seed in shared])
    mean, margin = cell[0], margin_of(cell)
    if margin is None:
        return Verdict("one seed", mean, None)
    word: Word = "better" if mean > margin else "worse" if mean < -margin else "no difference"
    return Verdict(word, mean, margin)


@dataclasses.dataclass(frozen=True)
class Control:
    """Compares how a task learned alone ranks the schemes with how it does among all tasks.

    Attributes:
      question: the name of the question.
      schemes: how many schemes have an answer to both.
      correlation: Spearman's rank correlation; NaN where all answers of one side are the same. It
        counts the order of schemes that seeds do not tell apart, too.
      pairs: how many pairs of schemes both tell apart by their seeds, as ``verdict`` does.
      agreeing: in how many of these pairs the same scheme is better.
    """

    question: str
    schemes: int
    correlation: float
    pairs: int
    agreeing: int


@dataclasses.dataclass(frozen=True)
class Atlas:
    """Holds every answer.

    Attributes:
      questions: those that any run has answered, in the order of the columns.
      unanswered: the topics that no run has answered yet.
      controls: the control of each task that was also learned alone.
      trained: the scheme that the checkpoint of each scheme was trained with.
      failures: the runs that failed; their answers are missing.
      about: ``command``, ``studies`` and whatever else every report says.
      effective: tokens of the longest context that still lowers the loss of each scheme by more
        than its standard error, on "text" and on the "manual", where there are several seeds; see
        ``View.effective``.
    """

    questions: list[Question]
    unanswered: list[str]
    controls: list[Control]
    trained: dict[str, str]
    failures: list[Record]
    about: dict[str, Any]
    effective: dict[str, dict[str, int]] = dataclasses.field(default_factory=dict)

    @property
    def schemes(self) -> list[str]:
        """Returns the schemes that have any answer, in the order of the registry."""
        return [n for n in REGISTRY if any(n in question.values for question in self.questions)]


def family(scheme: str) -> str:
    """Returns the family of a scheme: the folder of its module, such as "rotary"."""
    parts = REGISTRY[scheme].split(":")[0].split(".")
    return parts[2] if len(parts) > 2 else "none"


def atlas_of(studies: Mapping[str, Study], about: dict[str, Any]) -> Atlas:
    """Makes the atlas of its studies by name; see ``configs/atlas.py``."""
    language, tasks = studies["language"], studies["tasks"]
    assert isinstance(language, LengthStudy) and isinstance(tasks, PanelStudy)
    in_tasks = list(_of_tasks(tasks))
    trained = {r["scheme"]: r["trained"] for r in [*tasks.training, *language.training]}
    failures = [
        failure | {"scheme": f"{name}: {failure['scheme']}"}
        for name, study in studies.items()
        for failure in study.failures
    ]
    controls: list[Control] = []
    for name, study in studies.items():
        if name.startswith("tasks_") and isinstance(study, PanelStudy):
            controls += controls_of(in_tasks, list(_of_tasks(study)))
    of_text = [*_of_language(language), *gains(language.records)]
    questions = [*of_text, *in_tasks, *_of_cost(language)]
    answered = [question for question in questions if question.values]
    topics = {question.topic for question in answered}
    unanswered = [q.topic for q in questions if q.topic not in topics]
    unanswered += [
        f"{name.removeprefix('tasks_')} learned alone"
        for name, study in studies.items()
        if name.startswith("tasks_") and not study.records
    ]
    unanswered = [*dict.fromkeys(unanswered)]
    effective = _effective(language)
    return Atlas(answered, unanswered, controls, trained, failures, about, effective)


def _effective(study: LengthStudy) -> dict[str, dict[str, int]]:
    """Returns the effective context of each scheme in tokens, by topic of the text."""
    if not study.records:
        return {}
    _, protocol, stride = MAIN
    found = {}
    for split, topic in (("test", "text"), ("manual", "manual")):
        view = View.of(study, (split, protocol, stride))
        tokens = {scheme: view.effective(scheme) for scheme in view.cells}
        found[topic] = {scheme: n for scheme, n in tokens.items() if n is not None}
    return found


def _of_language(study: LengthStudy) -> Iterable[Question]:
    """Yields the losses of the last tokens, of all tokens, and of another domain, by length."""
    length, last = study.about["train_length"], study.about["last_tokens"]
    wanted = [("test", "last", f"the last {last} tokens", "text")]
    wanted += [("test", "non_overlapping", "all tokens", "text, all")]
    wanted += [("manual", "last", f"the last {last} tokens of the manual", "manual")]
    for split, protocol, tokens, topic in wanted:
        for question in losses(study.records, split, protocol, topic):
            multiple = question.multiple
            says = f"Bits per byte of {tokens} in texts of {multiple * length} tokens, "
            says += f"{multiple} times the trained length." if multiple > 1 else "as in training."
            yield dataclasses.replace(question, says=says)


def losses(records: Iterable[Record], split: str, protocol: str, topic: str) -> Iterable[Question]:
    """Yields the losses of one evaluation by length, without words about what was measured."""
    records = [r for r in records if (r["split"], r["protocol"]) == (split, protocol)]
    values = by_seed(records, "multiple", "bits_per_byte", f"{split}, {protocol}")
    for multiple in sorted({r["multiple"] for r in records}):
        rows = {scheme: row[multiple] for scheme, row in values.items() if multiple in row}
        yield Question(topic, multiple, "", "bits per byte", True, rows)


def gains(records: Iterable[Record]) -> Iterable[Question]:
    """Yields the gains of contexts beyond the trained length over the most recent tokens alone.

    They are given for texts like those of training and, as another topic, for the manual.
    """
    records = list(records)
    for split, topic, of in (("test", "gain", ""), ("manual", "gain, manual", " of the manual")):
        yield from _gains_of([r for r in records if r["split"] == split], topic, of)


def _gains_of(records: list[Record], topic: str, of: str) -> Iterable[Question]:
    alone = by_seed(
        (r for r in records if r["protocol"] == "windowed"), "multiple", "bits_per_byte", "windowed"
    )
    last = by_seed((r for r in records if r["protocol"] == "last"), "multiple", "bits_per_byte", "")
    for multiple in sorted({r["multiple"] for r in records if r["multiple"] > 1}):
        found = {
            scheme: {seed: own[1][seed] - loss for seed, loss in last[scheme][multiple].items()}
            for scheme, own in alone.items()
            if multiple in last.get(scheme, {})
        }
        says = (
            f"Bits per byte{of} by which {multiple} times the trained length of context is better "
            "than the same model fed only its most recent tokens, at most as many as in training."
        )
        if found:
            yield Question(topic, multiple, says, "bits per byte", False, found)


def _of_tasks(study: PanelStudy) -> Iterable[Question]:
    """Yields the shares of right rows and answers at every length, without regard to depth."""
    for panel in study.panels:
        task, is_exact = panel.condition, panel.metric == EXACT
        share = "rows whose answers are all right" if is_exact else "answers that are right"
        records = [r for r in study.records if panel.has(r)]
        values = by_seed(records, "x", "value", task)
        for x in panel.xs if panel.trained else ():
            rows = {scheme: row[x] for scheme, row in values.items() if x in row}
            chances = [r["chance"] for r in records if r["x"] == x and r["chance"] is not None]
            says = f"Share of {share}, in {task} with rows of {x} tokens"
            says += "." if x in panel.trained else "; no row of training was as long."
            multiple = float(x) / float(panel.trained[0])
            chance = chances[0] if chances else None
            topic = task if is_exact else f"{task}, answers"
            yield Question(topic, multiple, says, "share right", False, rows, chance)


def _of_cost(study: LengthStudy) -> Iterable[Question]:
    """Yields what training cost; a scheme that reads another's checkpoint cost nothing.

    The clock says nothing about seeds, which may have been trained as one program, and it goes on
    where a machine has other work. So there is one number for each scheme, and no verdict.
    """
    seconds: dict[str, list[float]] = {}
    for r in study.training:
        if r["trained"] == r["scheme"]:
            seconds.setdefault(r["scheme"], []).append(1e6 * r["seconds"] / r["tokens"])
    if seconds:
        says = "Training for a token of text, by the clock of a machine that may have other work."
        values = {scheme: {0: statistics.fmean(each)} for scheme, each in seconds.items()}
        yield Question(COST, 1, says, "microseconds", True, values)


def controls_of(together: list[Question], alone: list[Question]) -> Iterable[Control]:
    """Yields the control of each question, learned among all tasks and learned alone."""
    from scipy import stats  # half a second, in which every other program has started

    by_name = {question.name: question for question in together}
    for question in alone:
        other = by_name.get(question.name)
        shared = [n for n in question.values if other and n in other.values]
        if other is None or len(shared) < 3:
            continue
        pairs = [(question.cell(n)[0], other.cell(n)[0]) for n in shared]
        varies = all(len(set(side)) > 1 for side in zip(*pairs, strict=True))
        correlation = float(stats.spearmanr(*zip(*pairs, strict=True))[0]) if varies else math.nan
        words = [
            (_word(question, a, b), _word(other, a, b))
            for a, b in itertools.combinations(shared, 2)
        ]
        told = [both for both in words if set(both) <= {"better", "worse"}]
        agreeing = sum(one == two for one, two in told)
        yield Control(question.name, len(shared), correlation, len(told), agreeing)


def _word(question: Question, scheme: str, against: str) -> Word | None:
    found = verdict(question, scheme, against)
    return found.word if found else None


def answers(atlas: Atlas) -> list[dict[str, Any]]:
    """Returns one record for each answer, as plain numbers; an answer that is missing has none."""
    return [r for question in atlas.questions for r in answers_to(question, atlas.schemes)]


def answers_to(question: Question, schemes: Iterable[str]) -> Iterable[dict[str, Any]]:
    """Yields the record of each answer to a question; a scheme without an answer has none."""
    for scheme in schemes:
        if scheme not in question.values:
            continue
        cell = question.cell(scheme)
        record: dict[str, Any] = {"scheme": scheme, "question": question.name}
        record |= {"topic": question.topic, "multiple": question.multiple}
        record |= {"unit": question.unit, "is_error": question.is_error}
        record |= {
            "mean": cell[0],
            "margin": margin_of(cell),
            "seeds": cell[2],
            "chance": question.chance,
        }
        for against in AGAINST:
            found = verdict(question, scheme, against)
            record[f"vs_{against}"] = found and found.word
            record[f"vs_{against}_difference"] = found and found.difference
            record[f"vs_{against}_margin"] = found and found.margin
        yield record


def counts(atlas: Atlas, scheme: str, against: str) -> dict[Word, int]:
    """Returns at how many questions a scheme is better, worse, and so on, than another."""
    found = [verdict(question, scheme, against) for question in atlas.questions]
    return {word: sum(v is not None and v.word == word for v in found) for word in WORDS}


def print_summary(atlas: Atlas, console: Console) -> None:
    """Prints at how many questions each scheme is better or worse than NoPE and than RoPE."""
    print_failures(atlas.failures, console)
    columns = [f"{word}\nthan {name}" for name in AGAINST for word in ("better", "worse")]
    table = terminal_table(f"verdicts on {len(atlas.questions)} questions", columns)
    for scheme in atlas.schemes:
        each = [counts(atlas, scheme, name)[word] for name in AGAINST for word in WORDS[:2]]
        table.add_row(scheme, *map(str, each))
    console.print(table)
    if atlas.unanswered:
        console.print(unanswered_words(atlas), highlight=False)
    for control in atlas.controls:
        console.print(f"control: {control_words(control)}", highlight=False)


def unanswered_words(atlas: Atlas) -> str:
    """Returns a sentence about the topics without any result yet, or an empty one."""
    return f"No run has answered yet: {'; '.join(atlas.unanswered)}." if atlas.unanswered else ""


def control_words(control: Control) -> str:
    """Returns a sentence about a control."""
    rho = control.correlation
    found = (
        "cannot be compared, for all answers of one side are the same"
        if math.isnan(rho)
        else f"have a rank correlation of {rho:.2f}"
    )
    if control.pairs:
        found += f"; of the pairs that both tell apart, {control.agreeing} of {control.pairs} agree"
    return f"{control.question}: alone and among all tasks, {control.schemes} schemes {found}"
