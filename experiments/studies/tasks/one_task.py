"""Trains models on one task each until they have learned it, and tests them on longer rows.

``OneTask`` is the study of a task, and ``Learned`` runs one for each of several tasks.
"""

import dataclasses
import math

import jax
import numpy as np
import pandas as pd

from experiments.results import table
from experiments.results.panels import ANSWERS, EXACT, SHARES, learned_table, steps_to
from experiments.results.record import read_lines
from experiments.settings import bounded, names_in, one_of
from experiments.studies.combined import Studies
from experiments.studies.drawn_examples import generator
from experiments.studies.tasks import ALONE
from experiments.studies.tasks.study import Questions, Trials, likeliest
from experiments.studies.tasks.task import PAD
from experiments.training.recipe import Goal
from posenc_jax import Transformer

# Drawing rows of one length together is faster, so a batch has rows of at most this many lengths.
_LENGTHS = 8


@dataclasses.dataclass(frozen=True)
class Setting:
    """Describes the training data, and when the task is learned.

    Attributes:
      task: a name of ``ALONE``.
      length: the most tokens of a training row; all held-out rows have as many.
      shortest: the fewest tokens of a training row; 0 means the fewest that the task can have.
      growing: steps in which the longest rows of a batch grow from ``shortest`` to ``length``.
      enough: the share of held-out rows that a model must have right to have learned the task.
      every: steps from one test on the held-out rows to the next.
      held_out: number of held-out rows.
    """

    task: str = "copy"
    length: int = 32
    shortest: int = bounded(0, least=0)
    growing: int = bounded(0, least=0)
    enough: float = bounded(0.95, above=0, most=1)
    every: int = 50
    held_out: int = 256


@dataclasses.dataclass(frozen=True)
class TrialsOfOne(Trials):
    """Describes the evaluation data, in which no depth is chosen.

    Attributes:
      beside: other tasks that the model is tested on too, comma-separated names of ``ALONE``.
    """

    multiples: tuple[int, ...] = bounded((1, 2, 4), ascends=True, first=1)
    depths: tuple[float, ...] = dataclasses.field(default=(), init=False)
    beside: str = ""


class OneTask(Questions):
    """Compares how soon models learn a task, and how many longer rows they then have right."""

    kinds = (Setting, TrialsOfOne)
    title = "A task that is learned"

    def load(self):
        beside = names_in("eval.beside", self.trials.beside, ALONE)
        names = dict.fromkeys([one_of("task.task", self.setting.task, ALONE), *beside])
        self.tasks = tuple(ALONE[name] for name in names)
        self.learned, self.length = self.tasks[0], self.setting.length
        self.num_positions = self.learned.num_positions or self.length
        self.shortest = self.setting.shortest or self.learned.shortest
        if not self.learned.shortest <= self.shortest <= self.length:
            raise ValueError(
                f"task.shortest={self.shortest} must be at least {self.learned.shortest}, which "
                f"{self.learned.name} needs, and at most task.length={self.length}"
            )
        for task in self.tasks:
            if task.vocab_size > self.learned.vocab_size:
                raise ValueError(
                    f"eval.beside={task.name!r} has {task.vocab_size} token ids, and a model of "
                    f"{self.learned.name} knows {self.learned.vocab_size}: leave it out"
                )
        # This raises where the longest rows are too long for a task, before anything is trained.
        for task in self.tasks:
            _drawn(task, np.random.default_rng(0), 1, self.trials.multiples[-1] * self.length)
        self.panels = self.by_length()
        self.data = {"task": self.learned.name}

    def new_model(self, scheme, key):
        return self.make_model(Transformer, scheme, key, vocab_size=self.learned.vocab_size)

    def longest(self, step: int) -> int:
        """Returns the most tokens of a row of a step: rows are short at first."""
        first, growing = self.shortest, self.setting.growing
        return self.length if step >= growing else first + (self.length - first) * step // growing

    def draw(self, scheme, rng, count, step):
        whole: dict[str, np.ndarray] = {}
        for some in np.array_split(np.arange(count), min(count, _LENGTHS)):
            length = int(rng.integers(self.shortest, self.longest(step) + 1))
            for name, rows_NL in _drawn(self.learned, rng, len(some), length).items():
                empty = PAD if name == "tokens" else 0
                shape = count, self.length
                whole_NL = whole.setdefault(name, np.full(shape, empty, rows_NL.dtype))
                whole_NL[some, :length] = rows_NL
        return whole

    def goal(self, point):
        # The rows are the same for every model, and others than in training and in the tests.
        rng, setting = generator(self.learned.number, 2**63 + 1), self.setting
        rows = _drawn(self.learned, rng, setting.held_out, self.length)

        def measured(model):
            return {"score": float(_share(model, rows))}

        return Goal(measured, setting.enough, setting.every)

    def likeliest(self, task, rng, model, tokens_NL):
        rows = {"tokens": tokens_NL, "positions": task.positions(rng, tokens_NL)}
        return self.predict(likeliest, model, rows)

    def evaluate(self, point, model):
        lines = [li for li in read_lines(self.folder(point) / "metrics.jsonl") if "score" in li]
        # The first step whose score is the share or more, if there is one.
        steps = {
            f"{share:g}": next((li["step"] for li in lines if li["score"] >= share), None)
            for share in SHARES
        }
        return super().evaluate(point, model) | {"steps_to": steps}

    def frame(self):
        rows = []
        for evaluation in self.evaluations():
            first = evaluation["records"][0]
            row = {"scheme": first["scheme"], "seed": first["seed"], "split": self.learned.name}
            row |= {"x": self.length, "unit": "steps"}
            for share in SHARES:
                step = evaluation["steps_to"][f"{share:g}"]
                value = math.inf if step is None else step
                rows.append(row | {"measure": steps_to(share), "value": value})
        steps = table.tidy(self.config["experiment"], rows)
        return pd.concat([super().frame(), steps], ignore_index=True)


class Learned(Studies):
    """Runs a study for each task; see ``configs/learned.py``."""

    title = "Tasks that are learned"

    def tables(self, frame, comparisons):
        tables = []
        for name, rows in frame.groupby("study", sort=False):
            task = self.parts[name].learned.name
            metrics = [metric for metric in (EXACT, ANSWERS) if metric in set(rows["measure"])]
            tables += [learned_table(name, rows, task, metric) for metric in metrics]
        return tables


def _drawn(task, rng, count, length) -> dict[str, np.ndarray]:
    """Returns rows of a task, ``[N, L]``: ``tokens``, ``is_answer`` and ``positions``."""
    tokens_NL, is_answer_NL = task.draw(rng, count, length)
    positions_NL = task.positions(rng, tokens_NL)
    return {"tokens": tokens_NL, "is_answer": is_answer_NL, "positions": positions_NL}


@jax.jit
def _share(model, rows):
    """Returns the share of rows whose answers are all right."""
    is_right_NT = likeliest(model, rows) == rows["tokens"][:, 1:]
    return (is_right_NT | ~rows["is_answer"][:, 1:]).all(axis=1).mean()
