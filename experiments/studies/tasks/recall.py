"""Asks for what was written before: where it is, or what followed it."""

import numpy as np

from experiments.studies.tasks.task import (
    ASK,
    DIGITS,
    STORE,
    SYMBOLS,
    RowTask,
    at_end,
    distinct,
    in_noise,
    separated,
)

# The symbols of names and keys, and the symbols of values.
_NAMES, _VALUES = SYMBOLS[10:21], SYMBOLS[21:]


class Passkey(RowTask):
    """Hides four digits in noise, and asks for them (2305.16300)."""

    name, number, shortest, has_depth = "passkey", 0, 12, True
    _DIGITS = 4

    def _draw(self, rng, count, room, depth=None):
        key = rng.choice(DIGITS, (count, self._DIGITS))
        told = self._DIGITS + 1
        hidden = np.pad(key, ((0, 0), (1, 0)), constant_values=STORE)
        tokens = in_noise(rng, hidden[:, None], room, told, depth)
        tokens[:, -told] = ASK
        tokens[:, -self._DIGITS :] = key
        return tokens, at_end(tokens, self._DIGITS)

    def chances(self, length):
        return [1 / 10] * self._DIGITS


class Needles(RowTask):
    """Hides a value under each of four names in noise, and asks for one (2404.06654)."""

    name, number, shortest = "needles", 1, 24
    _NAMES = _NAMES
    # The symbols that values are made of, and the number of tokens of a value.
    _KINDS, _SIZE = _VALUES, 1
    # Tokens before the question that always are noise.
    _SPARE = 3

    def _count(self, room: int) -> int:
        """Returns how many values a row hides."""
        return 4

    def _draw(self, rng, count, room):
        number, told = self._count(room), self._SIZE + 2
        names = distinct(rng, count, self._NAMES, number)[..., None]
        values = rng.choice(self._KINDS, (count, number, self._SIZE))
        hidden = np.concatenate([np.full_like(names, STORE), names, values], axis=-1)
        tokens = in_noise(rng, hidden, room, told + self._SPARE)
        asked = rng.integers(0, number, (count, 1, 1))
        tokens[:, -told:] = np.take_along_axis(hidden, asked, axis=1)[:, 0]
        tokens[:, -told] = ASK
        return tokens, at_end(tokens, self._SIZE)

    def chances(self, length):
        return [_one_of(self._count(length - 1), len(self._KINDS))] * self._SIZE

    def chance(self, length):
        return _one_of(self._count(length - 1), len(self._KINDS) ** self._SIZE)


class Passkeys(Needles):
    """Hides a key of four digits under a name for every 16 tokens, and asks for one of the keys."""

    name, number, shortest = "passkeys", 0, 16
    _NAMES = SYMBOLS[10:]
    _KINDS, _SIZE, _SPARE = DIGITS, 4, 0

    def _count(self, room):
        return _at_most((room + 1) // 16, len(self._NAMES), "names")


class Recall(RowTask):
    """Tells pairs of a key and a value, and asks for the values of some keys (2312.04927).

    With more tokens there is more noise between the pairs, for keys must differ.
    """

    name, number, shortest = "recall", 2, 24
    _KEYS, _ASKED = _NAMES, 3

    def _pairs(self, room: int) -> int:
        """Returns how many pairs a row tells."""
        return 5

    def _draw(self, rng, count, room):
        pairs = self._pairs(room)
        keys = distinct(rng, count, self._KEYS, pairs)
        values = rng.choice(_VALUES, (count, pairs))
        tokens = in_noise(rng, np.stack([keys, values], axis=-1), room, 2 * self._ASKED + 1)
        asked = rng.random((count, pairs)).argsort(axis=1)[:, : self._ASKED]
        end = np.stack([np.take_along_axis(part, asked, axis=1) for part in (keys, values)], -1)
        tokens[:, -2 * self._ASKED - 1] = ASK
        tokens[:, -2 * self._ASKED :] = end.reshape(count, -1)
        is_answer = np.zeros((count, room), bool)
        is_answer[:, -2 * self._ASKED + 1 :: 2] = True
        return tokens, is_answer

    def chances(self, length):
        return [_one_of(self._pairs(length - 1), len(_VALUES))] * self._ASKED


class Pairs(Recall):
    """Tells pairs as ``Recall`` does, one for every 8 tokens of the row."""

    name = "pairs"
    _KEYS = SYMBOLS[:21]

    def _pairs(self, room):
        return _at_most((room + 1) // 8, len(self._KEYS), "keys")


class Induction(RowTask):
    """Repeats a random sequence, whose second half is what followed before (2209.11895)."""

    name, number, shortest = "induction", 3, 8

    def _draw(self, rng, count, room):
        half = (room - 1) // 2
        once = rng.choice(SYMBOLS, (count, half))
        tokens = separated(room, np.tile(once, 2))
        # The first of the repeated tokens says that it begins again, and is no answer.
        return tokens, at_end(tokens, half - 1)

    def chances(self, length):
        return [1 / len(SYMBOLS)] * ((length - 2) // 2 - 1)


class VariableTracking(RowTask):
    """Assigns values to variables and on to others, and asks for the last of a chain (2404.06654).

    Several chains are told, a link of each after the other and each time in another order, so
    that neither the place of a value nor how often a name is read says to which chain it belongs.
    """

    name, number, shortest = "variable_tracking", 4, 28
    _CHAINS, _HOPS = 3, 2

    def _draw(self, rng, count, room):
        total = self._HOPS * self._CHAINS
        targets = distinct(rng, count, _NAMES, total).reshape(count, self._HOPS, self._CHAINS)
        values = distinct(rng, count, _VALUES, self._CHAINS)
        sources = np.concatenate([values[:, None], targets[:, :-1]], axis=1)
        told = np.stack([np.full_like(targets, STORE), targets, sources], axis=-1)
        order = rng.random(targets.shape).argsort(axis=2)
        told = np.take_along_axis(told, order[..., None], axis=2)
        tokens = in_noise(rng, told.reshape(count, total, 3), room, 3 + total - 1)
        tokens[:, -3] = ASK
        tokens[:, -2] = targets[:, -1, 0]
        tokens[:, -1] = values[:, 0]
        return tokens, at_end(tokens, 1)

    def chances(self, length):
        return [1 / self._CHAINS]


def _at_most(needed: int, there_are: int, what: str) -> int:
    if needed > there_are:
        raise ValueError(
            f"the longest rows need {needed} {what}, and there are only {there_are}; give a "
            "smaller task.length or eval.multiples"
        )
    return needed


def _one_of(told: int, kinds: int) -> float:
    """Returns how often one of ``told`` values, drawn from ``kinds``, is the right one."""
    return (1 + (told - 1) / kinds) / told
