"""Asks for the result of an algorithm, whose steps grow with the length (2305.19466)."""

import abc

import numpy as np

from experiments.studies.tasks.task import DIGITS, SYMBOLS, RowTask, at_end, separated


class _Mapped(RowTask):
    """Maps a sequence of symbols to another one of as many symbols."""

    shortest = 6

    def _draw(self, rng, count, room):
        size = (room - 1) // 2
        given = rng.choice(SYMBOLS, (count, size))
        tokens = separated(room, given, self._result(given))
        return tokens, at_end(tokens, size)

    @abc.abstractmethod
    def _result(self, given_NS):
        """Returns the symbols that are asked for, ``[N, S]``."""

    def chances(self, length):
        return [1 / len(SYMBOLS)] * ((length - 2) // 2)


class Copy(_Mapped):
    """Copies a sequence."""

    name, number = "copy", 7

    def _result(self, given_NS):
        return given_NS


class Reverse(_Mapped):
    """Copies a sequence from its end to its beginning."""

    name, number = "reverse", 8

    def _result(self, given_NS):
        return given_NS[:, ::-1]


class Sort(_Mapped):
    """Sorts a sequence."""

    name, number = "sort", 10

    def _result(self, given_NS):
        return np.sort(given_NS, axis=1)


class Addition(RowTask):
    """Adds two numbers of as many digits, written from the last digit on, as the sum is."""

    name, number, shortest = "addition", 9, 9

    def _draw(self, rng, count, room):
        return self._sums(rng, count, self._size(room), room)

    def _size(self, room: int) -> int:
        """Returns how many digits a number has."""
        return (room - 3) // 3

    def _sums(self, rng, count, size, room):
        """Returns what ``_draw`` does, for numbers of ``size`` digits."""
        numbers = rng.integers(0, 10, (2, count, size))
        tokens = separated(room, *DIGITS[numbers], DIGITS[_sum(*numbers)])
        return tokens, at_end(tokens, size + 1)

    def chances(self, length):
        return [1 / 10] * self._size(length - 1) + [1 / 2]  # the last carry is 0 or 1


def _sum(one_NS, two_NS):
    digits, carry = [], 0
    for place in range(one_NS.shape[1]):
        total = one_NS[:, place] + two_NS[:, place] + carry
        digits.append(total % 10)
        carry = total // 10
    return np.stack([*digits, carry], axis=1)


class Parity(RowTask):
    """Says whether a sequence of bits has an odd number of ones."""

    name, number, shortest = "parity", 11, 5

    def _draw(self, rng, count, room):
        bits = rng.integers(0, 2, (count, room - 2))
        tokens = separated(room, DIGITS[bits], DIGITS[bits.sum(axis=1, keepdims=True) % 2])
        return tokens, at_end(tokens, 1)

    def chances(self, length):
        return [1 / 2]
