"""Adds numbers in the ways that the literature uses to generalise to more digits than trained.

Every number is written from its last digit on, as in ``Addition``, so that a digit of the sum needs
two digits and a carry. The tasks differ in how a model can find the two digits:

    addition_shifted   the positions of a row begin anywhere, so that all of them are trained
    addition_hinted    a hint before each digit says its place in its number (2310.16028)
    addition_coupled   digits of the same place have the same position (2405.20671)
"""

import numpy as np

from experiments.studies.tasks.algorithmic import Addition
from experiments.studies.tasks.task import DIGITS, VOCAB_SIZE, separated


class ShiftedAddition(Addition):
    """Begins to count the positions of a row anywhere."""

    name, num_positions = "addition_shifted", 256

    def positions(self, rng, tokens_NL):
        return _from_anywhere(rng, super().positions(rng, tokens_NL), self.num_positions)


class CoupledAddition(Addition):
    """Gives digits of the same place the same position, and begins to count anywhere.

    Positions of a number are counted from the token before it. A digit of the sum is predicted one
    position before the two digits that are added. Abacus embeddings (2405.17399) are a learned
    table over the same positions, in which all tokens that are no digits share one more position.
    """

    name, num_positions = "addition_coupled", 64

    def positions(self, rng, tokens_NL):
        return _from_anywhere(rng, _place(tokens_NL), self.num_positions)


class HintedAddition(Addition):
    """Writes a hint before each digit, the same hint for all digits of the same place.

    The hints of a number are consecutive, and the first one is drawn for each row. The hints of the
    sum are given, not asked for.
    """

    name, shortest = "addition_hinted", 11
    _HINTS = VOCAB_SIZE + np.arange(32)
    vocab_size = VOCAB_SIZE + len(_HINTS)

    def _draw(self, rng, count, room):
        size = self._size(room)
        # The row without hints begins with one separator, so that the first number is counted.
        tokens, is_answer = self._sums(rng, count, size, 3 * size + 4)
        place = _place(tokens)
        column = np.repeat(np.arange(3 * size + 4), 1 + (place[0] > 0))
        is_hint = np.append(column[1:], -1) == column
        hint = _from_anywhere(rng, place - 1, len(self._HINTS))[:, column]
        tokens = np.where(is_hint, self._HINTS[hint], tokens[:, column])
        is_answer = is_answer[:, column] & ~is_hint
        filler = (0, 0), (room - tokens.shape[1] + 1, 0)
        return separated(room, tokens[:, 1:]), np.pad(is_answer[:, 1:], filler)

    def _size(self, room):
        return (room - 4) // 6


def _place(tokens_NL: np.ndarray) -> np.ndarray:
    """Returns the distance of each token to the last one that is no digit; digits begin at 1."""
    index_L = np.arange(tokens_NL.shape[1])
    before_NL = np.where(np.isin(tokens_NL, DIGITS), 0, index_L)
    return index_L - np.maximum.accumulate(before_NL, axis=1)


def _from_anywhere(rng: np.random.Generator, numbers_NL: np.ndarray, count: int) -> np.ndarray:
    """Adds a random number to each row; all sums are below ``count``, int32 ``[N, L]``."""
    room = count - int(numbers_NL.max())
    if room < 1:
        raise ValueError(
            f"the longest rows need {numbers_NL.max() + 1} positions or hints, and there are only "
            f"{count}; give a smaller task.length or eval.multiples"
        )
    first_N1 = rng.integers(0, room, (len(numbers_NL), 1))
    return (numbers_NL + first_N1).astype(np.int32)
