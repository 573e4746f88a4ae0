"""Asks for a state that every token may change: a bit that was written, a number of tokens."""

import numpy as np

from experiments.studies.tasks.task import (
    ASK,
    DIGITS,
    IGNORE,
    NOISE,
    STORE,
    SYMBOLS,
    RowTask,
    at_end,
    drawn_indices,
)


class FlipFlop(RowTask):
    """Writes, ignores and at the end reads one bit: the bit is the last one written (2306.00946).

    As published, a tenth of the instructions are writes and most of the others are to be ignored.
    """

    name, number, shortest = "flip_flop", 5, 8
    _WRITES = 0.1

    def _draw(self, rng, count, room):
        pairs = room // 2
        kinds = self._kinds(rng, count, pairs)
        kinds[:, 0], kinds[:, -1] = STORE, ASK
        last = np.maximum.accumulate(np.where(kinds == STORE, np.arange(pairs), 0), axis=1)
        bits = rng.integers(0, 2, (count, pairs))
        bits = np.where(kinds == ASK, np.take_along_axis(bits, last, axis=1), bits)
        tokens = np.stack([kinds, DIGITS[bits]], axis=-1).reshape(count, -1)
        is_answer = np.stack([np.zeros_like(kinds, bool), kinds == ASK], axis=-1)
        odd = room - 2 * pairs  # a token that is left over becomes noise at the beginning
        noise = rng.choice(NOISE, (count, odd))
        return (
            np.concatenate([noise, tokens], axis=1),
            np.pad(is_answer.reshape(count, -1), ((0, 0), (odd, 0))),
        )

    def _kinds(self, rng, count, pairs):
        """Returns the instructions; the first becomes a write, and the last a read."""
        return np.where(rng.random((count, pairs)) < self._WRITES, STORE, IGNORE)

    def chances(self, length):
        return [1 / 2]


class FlipFlops(FlipFlop):
    """Writes, ignores and reads one bit again and again, as in the flip-flop language (2306.00946).

    The first instruction is a write and the last one a read. Each of the others is to be ignored
    with a probability of 0.8, and otherwise as often a write as a read.
    """

    name = "flip_flops"
    _IGNORED = 0.8

    def _kinds(self, rng, count, pairs):
        share = (1 - self._IGNORED) / 2
        return rng.choice([STORE, ASK, IGNORE], (count, pairs), p=[share, share, self._IGNORED])

    def chances(self, length):
        return [1 / 2] * ((length - 1) // 2 - 1)  # all instructions but the first may be reads

    def chance(self, length):
        # Every instruction but the first and the last may be a read, which halves the chance.
        return (1 - (1 - self._IGNORED) / 4) ** ((length - 1) // 2 - 2) / 2


class SparseFlipFlops(FlipFlops):
    """Ignores 98 instructions of 100, so that a bit is read long after it was written."""

    name = "flip_flops_sparse"
    _IGNORED = 0.98


class Counting(RowTask):
    """Shows a symbol, and asks how often it occurs among others; every number is as likely."""

    name, number, shortest = "counting", 6, 16
    _MOST = 9

    def _draw(self, rng, count, room):
        symbols, target = SYMBOLS[10:], rng.integers(10, len(SYMBOLS), (count, 1))
        times = rng.integers(0, self._MOST + 1, (count, 1))
        size = room - 3
        # Any symbol but the one that is counted: the symbols from it on are moved up by one.
        others = rng.integers(0, len(symbols) - 1, (count, size))
        tokens = symbols[others + (others >= target - 10)]
        where = drawn_indices(rng, count, size - 1, None, self._MOST)
        where = np.take_along_axis(where, rng.random(where.shape).argsort(axis=1), axis=1)
        chosen = np.take_along_axis(tokens, where, axis=1)
        chosen = np.where(np.arange(self._MOST) < times, SYMBOLS[target], chosen)
        np.put_along_axis(tokens, where, chosen, axis=1)
        ask = np.full((count, 1), ASK)
        row = np.concatenate([SYMBOLS[target], tokens, ask, DIGITS[times]], axis=1)
        return row, at_end(row, 1)

    def chances(self, length):
        return [1 / (self._MOST + 1)]
