"""Computes the losses by which searches choose, and keeps them.

A candidate's loss is a mean over documents of the target length, in nats per token: of all tokens,
as in the paper (``text_loss``), or of the answers to questions about a needle, as in LongRoPE2
(``needle_loss``). Both take a ``score``, which returns the losses of the tokens of documents.
"""

import dataclasses
import json
from collections.abc import Callable

import numpy as np

from experiments.results.record import Stored
from experiments.studies.longrope.search import Genome

# Tokens of a needle: half of them ask, and half are the answer.
NEEDLE = 16

Score = Callable[[np.ndarray], np.ndarray]


def text_loss(score: Score, tokens_NL: np.ndarray) -> float:
    """Returns the mean loss of all tokens of documents."""
    return float(score(tokens_NL).mean())


def needle_loss(score: Score, tokens_NL: np.ndarray) -> float:
    """Returns the mean loss of the answers alone, see ``with_needles``."""
    return float(score(with_needles(tokens_NL))[:, -NEEDLE // 2 :].mean())


def with_needles(tokens_NL: np.ndarray) -> np.ndarray:
    """Returns documents that begin with a needle and end with a question about it.

    A needle is a sequence of tokens drawn at random from all documents. The document ends with the
    needle again: its first half asks, and its second half is the answer, ``NEEDLE // 2`` tokens. A
    needle needs no words, so it works for bytes and for any vocabulary.
    """
    N, L = tokens_NL.shape
    rng = np.random.Generator(np.random.Philox(0))
    needles = rng.choice(tokens_NL.reshape(-1), (N, NEEDLE))
    return np.concatenate([needles, tokens_NL[:, : L - 2 * NEEDLE], needles], axis=1)


def remembered(
    fitness: Callable[[Genome], float], stored: Stored, advance: Callable[[str], None]
) -> Callable[[Genome], float]:
    """Returns ``fitness`` with each loss written to ``stored`` as soon as it is known.

    A search is a function of its seed and of the losses that it is told, so only the losses must be
    kept: a search that is started again takes the same steps, and computes no loss twice.
    ``advance`` is called after each loss with a note of the best so far.
    """
    best = float("inf")

    def loss_of(genome):
        nonlocal best
        loss = stored.get(json.dumps(dataclasses.asdict(genome)), lambda: fitness(genome))
        best = loss if loss < best else best
        advance(f"best {best:.4f}")
        return loss

    return loss_of
