"""Says how far an answer can be trusted, in badges: its seeds, and whether its order lasts.

A badge says how many seeds there are, that comparisons are corrected for their number, which
schemes learn a task, or whether longer training gives another order. ``docs/atlas/trust.json`` has
the badges of every question of the atlas, for the pages that show answers.
"""

import dataclasses
import json
import math
import operator
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from scipy import stats

from experiments.results.answers import AGAINST, GAIN, OWN_WINDOW, TASKS, Answer
from experiments.results.ladder import OPPONENTS
from experiments.results.lengths import WINDOWED
from experiments.results.record import read_json, write_files

Question = tuple[str, float]
JSON = "trust.json"
# The rank correlation from which an order lasts, and how many schemes it needs: of three
# schemes, half of all random orders reach it.
LASTS, SHARED = 0.5, 6


@dataclasses.dataclass(frozen=True)
class Rung:
    """Holds answers after equally long training.

    Attributes:
      name: the name in the guide.
      says: what was trained, in words.
      tokens: how many tokens a model has seen.
      answers: the answers of ``answers.judged``.
      length: tokens of a text in training, where other rungs have as many tokens in all.
    """

    name: str
    says: str
    tokens: float
    answers: pd.DataFrame
    length: int = 0
    _rows: dict[Question, dict[str, Answer]] = dataclasses.field(
        default_factory=dict, init=False, repr=False
    )

    @property
    def training(self) -> tuple[float, int]:
        """Returns what sorts rungs: of equally many tokens, those in longer texts count as more."""
        return self.tokens, self.length

    def rows(self, question: Question) -> dict[str, Answer]:
        """Returns the answers to a question by scheme.

        A rung of the ladder reads texts up to one longest length, and "text, beyond" and "gain"
        answer for all lengths up to that. Where the question was asked of several kinds of text
        too, ``kinds`` has the answers by kind.
        """
        # The guide asks the same some hundred times for each need.
        if question not in self._rows:
            self._rows[question] = self._select(*question)
        return self._rows[question]

    def seeds(self, question: Question) -> int:
        """Returns the seeds of the scheme that has the most at a question."""
        return max(answer["seeds"] for answer in self.rows(question).values())

    def _select(self, topic: str, multiple: float) -> dict[str, Answer]:
        if "text, beyond" in set(self.answers["topic"]):
            topic = "text, beyond" if topic == "text" and multiple > 1 else topic
            asked = (self.answers["topic"] == topic) & (self.answers["multiple"] >= multiple)
        else:
            asked = (self.answers["topic"] == topic) & (self.answers["multiple"] == multiple)
        rows = {
            row["scheme"]: row | {"kinds": {}} for row in self.answers[asked].to_dict("records")
        }
        if rows and topic in OPPONENTS:
            kind = self.answers["topic"].str.extract(rf"^{topic} of (\w+)$", expand=False)
            of_kinds = self.answers.assign(kind=kind).dropna(subset="kind").to_dict("records")
            for row in of_kinds:
                rows[row["scheme"]]["kinds"][row["kind"]] = row
        return rows


@dataclasses.dataclass(frozen=True)
class Order:
    """Holds how the order of the schemes on a rung agrees with longer training.

    Attributes:
      longer: the longest training that shares enough contenders with the rung, or None.
      rho, shared: the rank correlation with it, and how many contenders both share.
    """

    longer: Rung | None
    rho: float
    shared: int

    @property
    def lasts(self) -> bool:
        """Returns whether no longer training gives another order."""
        return self.longer is None or self.rho >= LASTS


def order(question: Question, rung: Rung, rungs: Sequence[Rung]) -> Order:
    """Compares the order of the contenders on a rung with that on the longest of all rungs.

    The contenders are the schemes that are ahead of every baseline on ``rung``. Schemes far behind
    would keep the rank correlation high whatever the others do, and schemes that are chosen by how
    they end would lower it.
    """
    rows = rung.rows(question)
    contenders = ahead(rows) - {WINDOWED}
    for longer in sorted(rungs, key=operator.attrgetter("training"), reverse=True):
        others = longer.rows(question)
        shared = sorted(others.keys() & contenders)
        if longer.training > rung.training and len(shared) >= SHARED:
            means = [[table[name]["mean"] for name in shared] for table in (rows, others)]
            return Order(longer, float(stats.spearmanr(*means).statistic), len(shared))
    return Order(None, math.nan, 0)


def ahead(rows: dict[str, Answer]) -> set[str]:
    """Returns the schemes whose mean is ahead of every baseline's; a gain is compared with 0."""
    sign = {name: -row["mean"] if row["is_error"] else row["mean"] for name, row in rows.items()}
    baselines = [sign[name] for name in AGAINST if name in sign]
    line = 0.0 if is_gain(rows) else max(baselines, default=-math.inf)
    # A mean is infinite where training diverged, also if higher is better.
    return {name for name, value in sign.items() if line < value < math.inf}


def is_gain(rows: dict[str, Answer]) -> bool:
    """Returns whether answers are gains, whose baseline is the scheme's own window."""
    return any(row["family"].startswith(GAIN) for row in rows.values())


def is_task(rows: dict[str, Answer]) -> bool:
    """Returns whether answers are counts of seeds that solve a task."""
    return any(row["family"] == TASKS for row in rows.values())


def is_judged(answer: Answer) -> bool:
    """Says whether an answer counts and has a verdict of several seeds."""
    if answer["family"] == TASKS:
        return True
    words = [answer[f"vs_{name}"] for name in (*AGAINST, OWN_WINDOW)]
    return any(isinstance(word, str) and word != "too few seeds" for word in words)


def badges(asked: Sequence[Question], rung: Rung, lasting: Order) -> list[str]:
    """Returns the badges of the answers of a rung to questions of one kind."""
    tables = [rung.rows(question) for question in asked]
    rows = tables[-1]
    learning = "corrected"
    if is_task(rows):
        able = [{name for name, of in table.items() if of["learned"]} for table in tables]
        learned, asked_all = set.intersection(*able), set.intersection(*map(set, tables))
        learning = f"learned by {len(learned)} of {len(asked_all)}"
    told = [f"{rung.seeds(asked[-1])} seeds", learning]
    if lasting.longer is None:
        return [*told, "rank: untested"]
    word = "lasts" if lasting.lasts else "reverses" if lasting.rho < 0 else "changes"
    rank = f"rank {word}: rho {lasting.rho:.2f} over {lasting.shared} contenders"
    if lasting.longer.seeds(asked[-1]) == 1:
        rank += ", 1 seed"
    return [*told, rank]


def of_questions(rungs: Sequence[Rung]) -> dict[str, dict[str, list[str]]]:
    """Returns the badges of all questions of the first rung that have verdicts.

    The result has the badges by topic and by multiple of the trained length, in words of JSON.
    """
    rung, told = rungs[0], dict[str, dict[str, list[str]]]()
    asked = rung.answers[["topic", "multiple"]].drop_duplicates()
    for question in asked.itertuples(index=False, name=None):
        topic, multiple = question
        if any(map(is_judged, rung.rows(question).values())):
            said = badges([question], rung, order(question, rung, rungs))
            told.setdefault(topic, {})[f"{multiple:g}"] = said
    return told


def write(path: Path, rungs: Sequence[Rung]) -> None:
    """Writes the badges of all questions into a file."""
    write_files(path.parent, {path.name: json.dumps(of_questions(rungs), indent=0) + "\n"})


def read(path: Path) -> dict[Question, list[str]]:
    """Returns the badges in a file by question; none if there is no file."""
    told = read_json(path) or {}
    return {
        (topic, float(multiple)): said
        for topic, by_multiple in told.items()
        for multiple, said in by_multiple.items()
    }


def words(told: Sequence[str]) -> str:
    """Returns badges in Markdown."""
    return " ".join(f"`{badge}`" for badge in told)
