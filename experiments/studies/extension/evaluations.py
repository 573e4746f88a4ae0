"""Evaluates an extended model in one of three ways, batch by batch, so that a kill costs one batch.

last       the last L tokens of a document, scored on the last few: the same tokens at every
           length, only the prefix grows
windowed   the same tokens in windows of the training length: the baseline that sees only the most
           recent tokens
short      windows of the training length, every token scored, loss and accuracy
"""

import dataclasses
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
class Reading:
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
        return len(self.windows_NL) * (self.windows_NL.shape[1] - 1)


class Readings:
    """Cuts the windows of an experiment from the test split of its corpus.

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
        self.trials, self.train_length = trials, train_length
        longest = trials.multiples[-1] * train_length
        self._documents_NL, self._short_NL = (
            eval_windows(corpus, "test", length=length + 1, count=count)
            for length, count in (
                (longest, trials.lengths[0][1]),
                (train_length, trials.short_windows),
            )
        )

    def of_method(self, scheme: str, target: int, is_fixed: bool) -> Iterator[Reading]:
        """Yields the readings of a method: every length, and short windows.

        The model is made for ``target`` times the training length. Short windows are always read
        under the encoding for ``target``; if it ``is_fixed``, as in a model that was tuned, so are
        documents of every length, and otherwise each length has an encoding of its own.
        """
        scored = self.trials.last_tokens
        for multiple, count in self.trials.lengths:
            windows_NL = self._documents_NL[:count, -multiple * self.train_length - 1 :]
            ratio = target if is_fixed else multiple
            yield Reading(scheme, LAST, multiple, ratio, windows_NL, scored)
        yield Reading(scheme, SHORT, 1, target, self._short_NL, self.train_length)

    def windowed(self, scheme: str) -> Reading:
        """Returns the reading of the plain model that sees no more than its training length."""
        stride = self.trials.window_stride
        # The last ``stride`` tokens of all windows together cover the targets.
        texts_NL, length = self._documents_NL, self.train_length
        ends = texts_NL.shape[1] - np.arange(0, self.trials.last_tokens, stride)
        windows = np.stack([texts_NL[:, end - length - 1 : end] for end in ends], axis=1)
        return Reading(scheme, WINDOWED, 1, 1, windows.reshape(-1, length + 1), stride)


class Reader:
    """Evaluates readings with one model, and stores the results of every batch."""

    def __init__(
        self,
        model: Transformer,
        mesh: Mesh,
        trials: Trials,
        stored: Stored,
        advance: Callable[..., None],
    ):
        # ``read`` advances, because batches that were stored count too.
        score = Scorer(model, mesh, trials.batch_tokens)
        both = Scorer(model, mesh, trials.batch_tokens, measure=token_losses_and_hits)
        self._scorers = {LAST: score, WINDOWED: score, SHORT: both}
        self._stored, self._advance, self._stride = stored, advance, trials.window_stride

    def read(
        self, reading: Reading, layers: Layers | None, bytes_per_token: float
    ) -> dict[str, Any]:
        """Returns the record of a reading under ``layers``, by default the model's own."""
        scorer, windows_NL = self._scorers[reading.protocol], reading.windows_NL
        # Results under the model's own encoding are the same for every method.
        scheme = "own" if layers is None else f"{reading.scheme} for {reading.ratio}x"
        name = f"{scheme}, {reading.protocol} at {reading.multiple}x"

        def measure(batch):
            return scorer(batch, layers)[:, -reading.scored :].mean(axis=1).tolist()

        means: list = []
        for of_batch, tokens in scorer.batches(windows_NL, self._stored, name, measure):
            means += of_batch
            self._advance(f"{reading.scheme} at {reading.multiple}x", steps=tokens)
        mean = np.mean(means, axis=0)
        is_short = reading.protocol == SHORT
        loss = float(mean[0] if is_short else mean)
        record = {
            "scheme": reading.scheme,
            "split": "test",
            "protocol": reading.protocol,
            "stride": self._stride if reading.protocol == WINDOWED else None,
            "multiple": reading.multiple,
            "length": windows_NL.shape[1] - 1,
            "ratio": reading.ratio,
            "documents": len(windows_NL),
            "loss": loss,
            "tokens": len(windows_NL) * reading.scored,
        }
        accuracy = {"accuracy": float(mean[1])} if is_short else {}
        return record | accuracy | in_other_units(loss, bytes_per_token)
