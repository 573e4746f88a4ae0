"""Says what an extended model is evaluated on, in one of three ways.

last       the last L tokens of a document, scored on the last few: the same tokens at every
           length, only the prefix grows
windowed   the same tokens in windows of the training length: the baseline that sees only the most
           recent tokens
short      windows of the training length, every token scored, loss and accuracy
"""

import dataclasses
import functools
from collections.abc import Iterator

import numpy as np

from experiments.evaluation.lengths import check_strides, check_targets
from experiments.results.extensions import LAST, SHORT, THROUGH_WINDOW
from experiments.training.corpus import Corpus
from experiments.training.windows import eval_windows


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
    """Describes one set of windows that is evaluated under the encoding of a method.

    Attributes:
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


class Documents:
    """Cuts the windows of evaluations from the test split of a corpus.

    Raises a ValueError if no document is long enough, or if the targets are more tokens than the
    shortest context holds.
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
        return Evaluation(scheme, THROUGH_WINDOW, 1, 1, windows_NL, stride)
