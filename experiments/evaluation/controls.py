"""Evaluates a model whose far context is cut off, hidden or shuffled, beside the whole context.

A scheme whose loss stays flat past the trained length L may read the far context or ignore it.
These protocols tell which. The first three score the same tokens, all those after the first L of
the longest texts; the last one scores the targets of ``evaluation/lengths.py``.

    beyond    the model reads the whole text.
    cut       the model reads windows of L tokens, each moved by a quarter of L, so that every token
              has between three quarters of L and L tokens before it, and nothing else.
    window    the model reads the whole text, but in every layer a query sees only the last L keys.
    shuffled  the model reads the whole text, in which all tokens but the last L before the targets
              are in a random order.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from experiments.evaluation.lengths import Protocols, scored
from posenc_jax import Transformer

Score = Callable[[np.ndarray, Any], np.ndarray]

CONTROLS = 3  # records of ``controls``
# A window of "cut" moves by a divisor of the trained length, about that length over this number.
_PARTS = 4


def beyond(
    score: Score, documents_NL: np.ndarray, protocols: Protocols, train_length: int, encoding: Any
) -> dict[str, Any]:
    """Returns the record of all tokens after the first ``train_length`` of the longest texts.

    ``score`` takes windows and an encoding, and returns losses, see ``lengths.Scorer``. Documents
    are int ``[N, protocols.document_length(train_length)]``. ``encoding`` replaces the model's,
    unless it is None.
    """
    texts_NL = _longest(documents_NL, protocols, train_length)
    losses_NL = score(texts_NL, encoding)[:, train_length:]
    return _record("beyond", protocols, train_length, losses_NL)


def controls(
    score: Score,
    score_within: Score,
    documents_NL: np.ndarray,
    protocols: Protocols,
    train_length: int,
) -> Iterator[dict[str, Any]]:
    """Yields a record for each control; ``score_within`` scores the model under ``within``."""
    texts_NL = _longest(documents_NL, protocols, train_length)
    hidden_NL = score_within(texts_NL, None)[:, train_length:]
    yield _record("window", protocols, train_length, hidden_NL)

    yield _record("cut", protocols, train_length, _cut(score, texts_NL, train_length))

    last = protocols.last_tokens
    far = texts_NL.shape[1] - train_length - last
    shuffled_NL = texts_NL.copy()
    shuffled_NL[:, :far] = np.random.default_rng(0).permuted(texts_NL[:, :far], axis=1)
    losses_NL = score(shuffled_NL, None)[:, -last:]
    yield _record("shuffled", protocols, train_length, losses_NL)


def within(model: Transformer, window: int) -> Transformer:
    """Returns a model whose queries see at most the last ``window`` keys, in every layer."""
    other = jax.tree.map(lambda x: x, model)  # a copy of the module, with the same arrays
    for layer in other.layers:
        if layer.window is None or isinstance(layer.window, int):  # chunks stay as they are
            layer.window = min(layer.window or window, window)
    return other


def _longest(documents_NL, protocols, train_length) -> np.ndarray:
    """Returns the longest texts, and one more token to predict, as other protocols cut them."""
    length = protocols.multiples[-1] * train_length
    return documents_NL[:, documents_NL.shape[1] - 1 - length :]


def _record(protocol, protocols, train_length, losses_NL) -> dict[str, Any]:
    multiple = protocols.multiples[-1]
    where = {"stride": None, "multiple": multiple, "length": multiple * train_length}
    return {"protocol": protocol} | where | scored(losses_NL)


def _cut(score, texts_NL, length) -> np.ndarray:
    """Returns the losses of all tokens after the first ``length``, read in windows of as many."""
    most = max(length // _PARTS, 1)
    stride = next(step for step in range(most, 0, -1) if length % step == 0)
    ends = range(length + stride, texts_NL.shape[1], stride)
    windows = np.stack([texts_NL[:, end - length : end + 1] for end in ends], axis=1)
    losses = score(windows.reshape(-1, length + 1), None)[:, -stride:]
    return losses.reshape(len(texts_NL), -1)
