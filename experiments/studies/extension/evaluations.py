"""Evaluates an extended model in one of three ways, batch by batch, so that a kill costs one batch.

last       the last L tokens of a document, scored on the last few: the same tokens at every
           length, only the prefix grows
windowed   the same tokens in windows of the training length: the baseline that sees only the most
           recent tokens
short      windows of the training length, every token scored, loss and accuracy
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from jax.sharding import Mesh

from experiments.evaluation.lengths import Scorer, check_strides, check_targets, in_other_units
from experiments.results.extensions import LAST, SHORT, WINDOWED
from experiments.results.record import Stored
from experiments.training.data import Corpus
from experiments.training.text import token_losses_and_hits
from experiments.training.windows import eval_windows
from posenc_jax import Layers, Transformer


@dataclasses.dataclass(frozen=True)
class Trials:
    """Describes the evaluations of every model.

    Attributes:
      lengths: ``(multiple, documents)`` pairs, ascending from 1: context lengths as multiples of
        the training length, and how many documents are read at each, which must not increase.
      last_tokens: tokens at the end of each document that are scored; at most the training length.
      window_stride: stride of the windowed baseline, a divisor of ``last_tokens``.
      short_windows: windows of the training length.
      batch_tokens: tokens of one forward pass, over all devices.
    """

    lengths: tuple[tuple[int, int], ...] = tuple((2**k, 64) for k in range(6))
    last_tokens: int = 256
    window_stride: int = 64
    short_windows: int = 256
    batch_tokens: int = 16384

    def __post_init__(self):
        multiples, counts = self.multiples, [count for _, count in self.lengths]
        falls = sorted(counts, reverse=True) == counts
        if multiples[:1] != [1] or sorted(set(multiples)) != multiples or not falls:
            raise ValueError(
                f"eval.lengths={self.lengths} must ascend from 1, in multiples of the trained "
                "length, and not read more documents at a greater length"
            )
        check_strides(self.last_tokens, self.window_stride)

    @property
    def multiples(self) -> list[int]:
        """Returns the context lengths, as multiples of the training length."""
        return [multiple for multiple, _ in self.lengths]


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Describes one set of windows that is evaluated under one encoding.

    Attributes:
      scheme: the name of the method.
      protocol: a protocol that is listed at the top of this file.
      multiple: the length, as a multiple of the training length.
      ratio: the multiple that the encoding is made for.
      windows_NL: int token ids; each window ends with a token that is only a target.
      scored: how many tokens at the end of a window are scored.
    """

    scheme: str
    protocol: str
    multiple: int
    ratio: int
    windows_NL: np.ndarray
    scored: int

    @property
    def tokens(self) -> int:
        """Returns how many tokens pass through the model."""
        return self.windows_NL[:, 1:].size


class Documents:
    """Cuts the windows of evaluations from the test split of a corpus.

    Args:
      corpus: the corpus.
      trials: the evaluations.
      train_length: tokens of a sequence that the model was trained on.

    Raises:
      ValueError: no document is long enough, or more tokens are to be scored than the shortest
        context holds.
    """

    def __init__(self, corpus: Corpus, trials: Trials, train_length: int):
        check_targets(trials.last_tokens, train_length)
        self._trials, self._train_length = trials, train_length
        longest, most = trials.multiples[-1] * train_length, trials.lengths[0][1]
        cut = functools.partial(eval_windows, corpus, "test")
        self._documents_NL = cut(length=longest + 1, count=most)
        self._short_NL = cut(length=train_length + 1, count=trials.short_windows)

    def of_method(self, scheme: str, target: int, is_fixed: bool) -> Iterator[Evaluation]:
        """Yields the evaluations of a method: every length, and short windows.

        The model is made for ``target`` times the training length. Short windows are always read
        under the encoding for ``target``; if it ``is_fixed``, as in a model that was tuned, so are
        documents of every length, and otherwise each length has an encoding of its own.
        """
        scored, length = self._trials.last_tokens, self._train_length
        for multiple, count in self._trials.lengths:
            windows_NL = self._documents_NL[:count, -multiple * length - 1 :]
            ratio = target if is_fixed else multiple
            yield Evaluation(scheme, LAST, multiple, ratio, windows_NL, scored)
        yield Evaluation(scheme, SHORT, 1, target, self._short_NL, length)

    def windowed(self, scheme: str) -> Evaluation:
        """Returns the evaluation of the plain model that sees no more than its training length."""
        stride, length = self._trials.window_stride, self._train_length
        # The last ``stride`` tokens of all windows together cover the targets.
        ends = self._documents_NL.shape[1] - np.arange(0, self._trials.last_tokens, stride)
        windows = [self._documents_NL[:, end - length - 1 : end] for end in ends]
        windows_NL = np.stack(windows, axis=1).reshape(-1, length + 1)
        return Evaluation(scheme, WINDOWED, 1, 1, windows_NL, stride)


class Evaluator:
    """Makes evaluations of one model, and stores the results of every batch."""

    def __init__(
        self,
        model: Transformer,
        mesh: Mesh,
        trials: Trials,
        stored: Stored,
        advance: Callable[..., None],
    ):
        # ``record`` advances, because batches that were stored count too.
        score = Scorer(model, mesh, trials.batch_tokens)
        both = Scorer(model, mesh, trials.batch_tokens, measure=token_losses_and_hits)
        self._scorers = {LAST: score, WINDOWED: score, SHORT: both}
        self._stored, self._advance, self._stride = stored, advance, trials.window_stride

    def record(
        self, one: Evaluation, layers: Layers | None, bytes_per_token: float
    ) -> dict[str, Any]:
        """Returns the record of an evaluation under ``layers``, by default the model's own."""
        scorer, windows_NL = self._scorers[one.protocol], one.windows_NL
        # Results under the model's own encoding are the same for every method.
        under = "own" if layers is None else f"{one.scheme} for {one.ratio}x"
        name = f"{under}, {one.protocol} at {one.multiple}x"

        def measure(batch):
            return scorer(batch, layers)[:, -one.scored :].mean(axis=1).tolist()

        means: list = []
        for of_batch, tokens in scorer.batches(windows_NL, self._stored, name, measure):
            means += of_batch
            self._advance(f"{one.scheme} at {one.multiple}x", steps=tokens)
        # One number, the loss, or also the accuracy.
        loss, *accuracy = np.atleast_1d(np.mean(means, axis=0)).tolist()
        record = {
            "scheme": one.scheme,
            "split": "test",
            "protocol": one.protocol,
            "stride": self._stride if one.protocol == WINDOWED else None,
            "multiple": one.multiple,
            "length": windows_NL.shape[1] - 1,
            "ratio": one.ratio,
            "documents": len(windows_NL),
            "loss": loss,
            "tokens": len(windows_NL) * one.scored,
        }
        record |= {"accuracy": accuracy[0]} if accuracy else {}
        return record | in_other_units(loss, bytes_per_token)
