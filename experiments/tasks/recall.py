"""Asks for what was written before: where it is, or what followed it."""

import numpy as np

from experiments.tasks.task import (
    ASK,
    DIGITS,
    NOISE,
    SEPARATE,
    STORE,
    SYMBOLS,
    Task,
    at_end,
    distinct,
    places,
)

# What names things, and what they are.
_NAMES, _VALUES = SYMBOLS[10:21], SYMBOLS[21:]


class Passkey(Task):
    """Hides four digits in noise, and asks for them (2305.16300)."""

    name, number, shortest, has_depth = "passkey", 0, 12, True
    _DIGITS = 4

    def _draw(self, rng, count, length, depth):
        key = rng.choice(DIGITS, (count, self._DIGITS))
        tokens = rng.choice(NOISE, (count, length))
        told = self._DIGITS + 1
        first = places(rng, count, length - 2 * told, depth)
        np.put_along_axis(tokens, first, STORE, axis=1)
        np.put_along_axis(tokens, first + 1 + np.arange(self._DIGITS), key, axis=1)
        tokens[:, -told] = ASK
        tokens[:, -self._DIGITS :] = key
        return tokens, at_end(count, length, self._DIGITS)

    def solve(self, tokens_L, is_answer_L):
        first = list(tokens_L).index(STORE) + 1
        return [int(each) for each in tokens_L[first : first + self._DIGITS]]

    def chances(self, length):
        return [1 / 10] * self._DIGITS


class Needles(Task):
    """Hides a value under each of four names in noise, and asks for one (2404.06654)."""

    name, number, shortest = "needles", 1, 24
    shortcut = "Any value that the row shows is right in 32 % of rows."
    _COUNT = 4

    def _draw(self, rng, count, length, depth):
        names = distinct(rng, count, _NAMES, self._COUNT)
        values = rng.choice(_VALUES, (count, self._COUNT))
        tokens = rng.choice(NOISE, (count, length))
        # Each needle takes three places: they are drawn as one, and then moved apart.
        first = places(rng, count, length - 3 - 3 * self._COUNT, None, self._COUNT)
        first = first + 2 * np.arange(self._COUNT)
        needles = np.stack([np.full_like(names, STORE), names, values], axis=-1)
        at = first[..., None] + np.arange(3)
        np.put_along_axis(tokens, at.reshape(count, -1), needles.reshape(count, -1), axis=1)
        asked = rng.integers(0, self._COUNT, (count, 1))
        tokens[:, -3] = ASK
        tokens[:, -2:-1] = np.take_along_axis(names, asked, axis=1)
        tokens[:, -1:] = np.take_along_axis(values, asked, axis=1)
        return tokens, at_end(count, length, 1)

    def solve(self, tokens_L, is_answer_L):
        told = np.flatnonzero(tokens_L == STORE)
        return [int(tokens_L[at + 2]) for at in told if tokens_L[at + 1] == tokens_L[-2]]

    def chances(self, length):
        return [1 / len(_VALUES)]


class Recall(Task):
    """Tells pairs of a key and a value, and asks for the values of some keys (2312.04927).

    With more tokens there is more noise between the pairs, for keys must differ.
    """

    name, number, shortest = "recall", 2, 24
    shortcut = "Any values that the row shows are all right in 2 % of rows."
    _PAIRS, _ASKED = 5, 3

    def _draw(self, rng, count, length, depth):
        keys = distinct(rng, count, _NAMES, self._PAIRS)
        values = rng.choice(_VALUES, (count, self._PAIRS))
        tokens = rng.choice(NOISE, (count, length))
        room = length - 2 * self._ASKED - 1 - 2 * self._PAIRS
        first = places(rng, count, room + self._PAIRS - 1, None, self._PAIRS)
        at = first + np.arange(self._PAIRS)
        np.put_along_axis(tokens, at, keys, axis=1)
        np.put_along_axis(tokens, at + 1, values, axis=1)
        asked = rng.random((count, self._PAIRS)).argsort(axis=1)[:, : self._ASKED]
        end = np.stack([np.take_along_axis(each, asked, axis=1) for each in (keys, values)], -1)
        tokens[:, -2 * self._ASKED - 1] = ASK
        tokens[:, -2 * self._ASKED :] = end.reshape(count, -1)
        is_answer = np.zeros((count, length), bool)
        is_answer[:, -2 * self._ASKED + 1 :: 2] = True
        return tokens, is_answer

    def solve(self, tokens_L, is_answer_L):
        told = list(tokens_L[: list(tokens_L).index(ASK)])
        asked = tokens_L[np.flatnonzero(is_answer_L) - 1]
        return [int(told[told.index(key) + 1]) for key in asked]

    def chances(self, length):
        return [1 / len(_VALUES)] * self._ASKED


class Induction(Task):
    """Repeats a random sequence, whose second half is what followed before (2209.11895)."""

    name, number, shortest = "induction", 3, 8

    def _draw(self, rng, count, length, depth):
        half = (length - 1) // 2
        once = rng.choice(SYMBOLS, (count, half))
        rest = np.full((count, length - 2 * half), SEPARATE)
        # The first of the repeated tokens says that it begins again, and is no answer.
        return np.concatenate([rest, once, once], axis=1), at_end(count, length, half - 1)

    def solve(self, tokens_L, is_answer_L):
        half = int(is_answer_L.sum()) + 1
        return [int(each) for each in tokens_L[-2 * half : -half][1:]]

    def chances(self, length):
        return [1 / len(SYMBOLS)] * ((length - 2) // 2 - 1)


class Variables(Task):
    """Assigns a value to a variable and on to others, and asks for the last one's (2404.06654).

    Assignments of other values to other variables lie between. Only the chain has names on both
    sides, so that it is found without being followed: the value of the one name that is read again
    is always right.
    """

    name, number, shortest = "variables", 4, 28
    shortcut = "The first value that the row shows is right in 64 % of rows, any other in fewer."
    _HOPS, _OTHERS = 3, 2

    def _draw(self, rng, count, length, depth):
        names = distinct(rng, count, _NAMES, self._HOPS + self._OTHERS)
        value, *other_values = (rng.choice(_VALUES, (count, 1)) for _ in range(1 + self._OTHERS))
        chain, others = names[:, : self._HOPS], names[:, self._HOPS :]
        sources = np.concatenate([value, chain[:, :-1], *other_values], axis=1)
        targets = np.concatenate([chain, others], axis=1)
        total = self._HOPS + self._OTHERS
        tokens = rng.choice(NOISE, (count, length))
        first = places(rng, count, length - 3 - 3 * total, None, total)
        first = first + 2 * np.arange(total)
        # The links of the chain stay in order, and the others may be anywhere between them.
        order = np.argsort(_interleaved(rng, count, self._HOPS, self._OTHERS), axis=1)
        at = np.take_along_axis(first, np.argsort(order, axis=1), axis=1)[..., None] + np.arange(3)
        told = np.stack([np.full_like(targets, STORE), targets, sources], axis=-1)
        np.put_along_axis(tokens, at.reshape(count, -1), told.reshape(count, -1), axis=1)
        tokens[:, -3] = ASK
        tokens[:, -2:-1] = chain[:, -1:]
        tokens[:, -1:] = value
        return tokens, at_end(count, length, 1)

    def solve(self, tokens_L, is_answer_L):
        told = np.flatnonzero(tokens_L == STORE)
        assigned = {int(tokens_L[at + 1]): int(tokens_L[at + 2]) for at in told}
        found = int(tokens_L[-2])
        while found in assigned:
            found = assigned[found]
        return [found]

    def chances(self, length):
        return [1 / len(_VALUES)]


def _interleaved(rng, count, ordered, others) -> np.ndarray:
    """Returns keys to sort by, of which the first ``ordered`` ascend, ``[count, all]``."""
    keys = rng.random((count, ordered + others))
    keys[:, :ordered] = np.sort(keys[:, :ordered], axis=1)
    return keys
