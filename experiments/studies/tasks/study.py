"""Trains one model on all tasks together, and tests it on rows longer than in training."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from experiments.results.panels import ANSWERS, EXACT, Panel, Result
from experiments.settings import bounded, names_in
from experiments.studies.drawn_examples import DrawnExamples, generator
from experiments.studies.tasks import TASKS
from experiments.studies.tasks.task import PAD, VOCAB_SIZE
from experiments.training.encodings import at_ratio, make_encoding
from posenc_jax import Transformer, positions

_LENGTH, _DEPTH = "tokens of a row", "depth of what is asked for"


@dataclasses.dataclass(frozen=True)
class Setting:
    """Describes the training data.

    Attributes:
      tasks: names of ``TASKS``, comma-separated, or "all".
      length: the most tokens of a training row; each row has its task's shortest or more.
    """

    tasks: str = "all"
    length: int = 64


@dataclasses.dataclass(frozen=True)
class Trials:
    """Describes the evaluation data.

    Attributes:
      multiples: lengths of rows, as multiples of the longest of training, ascending from 1.
      depths: the depths of the answers, at the largest multiple, for tasks that have a depth.
      rows: rows of each task at each length.
      batch: rows in one forward pass.
    """

    multiples: tuple[int, ...] = bounded((1, 2, 4, 8), ascends=True, first=1)
    depths: tuple[float, ...] = bounded((0.0, 0.25, 0.5, 0.75, 1.0), least=0, most=1)
    rows: int = 256
    batch: int = 32


class Questions(DrawnExamples):
    """Compares how well schemes answer in rows that are longer than any of training.

    Each answer is read after the right ones before it. A row is an exact match where all of its
    answers are right, as greedy decoding then gives them. Where a row has several, the share of
    answers that are right is shown too, because it tells schemes apart before any row is right.
    """

    kinds: tuple[type, type] = (Setting, Trials)
    title = "Questions past the trained length"
    baseline = "rope"

    def load(self):
        is_all = self.setting.tasks.strip() == "all"
        names = TASKS if is_all else names_in("task.tasks", self.setting.tasks, TASKS)
        self.tasks = tuple(TASKS[name] for name in dict.fromkeys(names))
        self.length = self.num_positions = self.setting.length
        for task in self.tasks:
            task.draw(np.random.default_rng(0), 1, self.length)  # which may be too short
        self.panels = self.by_length() + tuple(
            Panel(self._by_depth(task), EXACT, _DEPTH, self.trials.depths)
            for task in self.tasks
            if task.has_depth and self.trials.depths
        )
        self.data = {"tasks": ",".join(task.name for task in self.tasks)}

    def by_length(self) -> tuple[Panel, ...]:
        """Returns the panels that show the tasks by the length of their rows."""
        lengths = tuple(multiple * self.length for multiple in self.trials.multiples)
        return tuple(
            Panel(task.name, metric, _LENGTH, lengths, lengths[:1])
            for task in self.tasks
            for metric in _metrics(task)
        )

    def encoding(self, scheme, rngs, multiple=None):
        """Builds the encoding for ``multiple`` times the trained length, by default the longest."""
        ratio = multiple or self.trials.multiples[-1]
        encoding = at_ratio(self.keywords(scheme), ratio, self.length)
        return make_encoding(encoding, self.config["model"], self.num_positions, rngs)

    def _by_depth(self, task) -> str:
        return f"{task.name} in {self.trials.multiples[-1] * self.length} tokens"

    def new_model(self, scheme, key):
        return self.make_model(Transformer, scheme, key, vocab_size=VOCAB_SIZE)

    def draw(self, scheme, rng, count, step):
        """Draws rows of all tasks, of any length up to that of training."""
        tokens_NL = np.full((count, self.length), PAD, np.int32)
        is_answer_NL = np.zeros((count, self.length), bool)
        chosen = rng.integers(len(self.tasks), size=count)
        for number, task in enumerate(self.tasks):
            # One length for all rows of a task: drawing them together is ten times as fast.
            length = int(rng.integers(task.shortest, self.length + 1))
            is_of_task = chosen == number
            if not is_of_task.any():
                continue
            rows = task.draw(rng, int(is_of_task.sum()), length)
            tokens_NL[is_of_task, :length], is_answer_NL[is_of_task, :length] = rows
        return {"tokens": tokens_NL, "is_answer": is_answer_NL}

    def loss(self, scheme, model, batch, key):
        return _loss_of_answers(_logits(model, batch, key), batch)

    def measure(self, scheme, model):
        models = {multiple * self.length: model for multiple in self.trials.multiples}
        if self.variant(scheme).get("of"):  # an extension is made for each length by itself
            models = {n: model.under(self.encoding(scheme, None, n // self.length)) for n in models}
        *_, longest = models
        for task in self.tasks:
            for length, of_length in models.items():
                yield from self._results(task, of_length, length)
            for depth in self.trials.depths if task.has_depth else ():
                exact, *_ = self._results(task, models[longest], longest, depth)
                yield dataclasses.replace(exact, condition=self._by_depth(task), x=depth)

    def _results(self, task, model, length, depth=None) -> list[Result]:
        """Returns the shares of rows and of answers that are right, in rows of ``length``."""
        # The same rows for every scheme and seed, and others than in training.
        rng = generator(task.number, 2**63)
        rows = task.draw(rng, self.trials.rows, length, depth)
        likeliest_NL = self.likeliest(task, rng, model, rows.tokens_NL)
        is_right_NL = likeliest_NL == rows.tokens_NL[:, 1:]
        is_answer_NL, chances = rows.is_answer_NL[:, 1:], task.chances(length)
        shares = ((is_right_NL | ~is_answer_NL).all(axis=1).mean(), task.chance(length))
        of_answers = (is_right_NL[is_answer_NL].mean(), sum(chances) / len(chances))
        return [
            Result(task.name, length, metric, float(value), chance)
            for metric, (value, chance) in zip(_metrics(task), (shares, of_answers), strict=False)
        ]

    def likeliest(self, task, rng, model, tokens_NL):
        """Returns the likeliest token after every token but the last one, ``[N, L - 1]``."""
        return self.predict(likeliest, model, {"tokens": tokens_NL})


def _metrics(task) -> tuple[str, ...]:
    """Returns the metrics of a task: of its rows and, if these have several, of its answers."""
    return (EXACT, ANSWERS) if len(task.chances(task.shortest)) > 1 else (EXACT,)


def _loss_of_answers(logits_NTV, batch) -> jax.Array:
    """Returns the mean loss of the answers; other tokens cannot be predicted."""
    losses_NT = -jnp.take_along_axis(
        jax.nn.log_softmax(logits_NTV), batch["tokens"][:, 1:, None], axis=-1
    )[..., 0]
    # Each row counts as much as any other, however many answers it has.
    weights_NT = batch["is_answer"][:, 1:] / batch["is_answer"].sum(axis=1, keepdims=True)
    return (losses_NT * weights_NT).sum() / len(weights_NT)


def _logits(model, rows, key=None):
    tokens_NT = rows["tokens"][:, :-1]
    if "positions" in rows:
        return model(tokens_NT, rows["positions"][:, :-1], key=key)
    return model(tokens_NT, positions.text(tokens_NT.shape[1]), key=key)


def likeliest(model, rows):
    """Returns the likeliest token after each token of ``rows`` but the last, ``[N, L - 1]``."""
    return jnp.argmax(_logits(model, rows), axis=-1)
