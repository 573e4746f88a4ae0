"""Defines what a task is: a pure function that draws rows of tokens with answers among them.

All tasks share one vocabulary, so one model can learn them together. A row begins with the marker
of its task, and is filled up to its width with ``PAD``, which is never an answer.
"""

import abc
import math
from typing import NamedTuple

import numpy as np

PAD, ASK, SEPARATE, STORE, IGNORE = range(5)
_FIRST_MARKER, _MARKERS = 5, 16
# 32 symbols that things are made of, the first ten are digits; and 8 symbols that mean nothing.
SYMBOLS = np.arange(32) + _FIRST_MARKER + _MARKERS
DIGITS = SYMBOLS[:10]
NOISE = np.arange(8) + SYMBOLS[-1] + 1
VOCAB_SIZE = int(NOISE[-1]) + 1


class Rows(NamedTuple):
    """Holds int32 token ids, and which are to be predicted, each from the tokens before it."""

    tokens_NL: np.ndarray
    is_answer_NL: np.ndarray


class RowTask(abc.ABC):
    """Draws rows, and says how often a guess is right; a subclass has ``_draw`` and ``chances``.

    A row of ``length`` tokens has a marker and room for ``length - 1`` others, the ``room`` of
    ``_draw``.

    Attributes:
      name: the name in configs and reports.
      number: which of the markers is the task's.
      shortest: the fewest tokens that a row can have.
      has_depth: whether the place of the answer in the row can be chosen.
      vocab_size: number of token ids; a task may have more ids than the shared vocabulary.
      num_positions: how many positions there are; None means as many as a training row has tokens.
    """

    name: str
    number: int
    shortest: int
    has_depth = False
    vocab_size = VOCAB_SIZE
    num_positions: int | None = None

    def draw(
        self, rng: np.random.Generator, count: int, length: int, depth: float | None = None
    ) -> Rows:
        """Draws ``count`` rows of exactly ``length`` tokens, with the marker and the answers.

        The rows depend on ``rng`` alone. ``depth`` is the place of the answer in the row, from 0,
        the beginning, to 1, the end; by default it is anywhere. Only a task that ``has_depth``
        takes one. Raises a ValueError if the rows are too short for the task.
        """
        if length < self.shortest:
            raise ValueError(
                f"length={length} is too short for {self.name}, which needs {self.shortest} tokens"
            )
        where = {"depth": depth} if self.has_depth else {}
        body, is_answer = self._draw(rng, count, length - 1, **where)
        marker = np.full((count, 1), _FIRST_MARKER + self.number)
        return Rows(
            np.concatenate([marker, body], axis=1).astype(np.int32),
            np.pad(is_answer, ((0, 0), (1, 0))),
        )

    @abc.abstractmethod
    def _draw(self, rng, count, room) -> tuple[np.ndarray, np.ndarray]:
        """Returns the tokens after the marker, and which are answers, both ``[count, room]``.

        A task that ``has_depth`` takes a ``depth`` too, see ``draw``.
        """

    def positions(self, rng: np.random.Generator, tokens_NL: np.ndarray) -> np.ndarray:
        """Returns the position of each token, int32 ``[N, L]``; by default its index in the row."""
        return np.broadcast_to(np.arange(tokens_NL.shape[1], dtype=np.int32), tokens_NL.shape)

    @abc.abstractmethod
    def chances(self, length: int) -> list[float]:
        """Returns how often a guess is right, for each answer of a row.

        The guess is drawn from the values that the row shows or, if it does not mark them, from all
        symbols of the right kind.
        """

    def chance(self, length: int) -> float:
        """Returns how often all answers of a row are guessed right."""
        return math.prod(self.chances(length))


def at_end(tokens_NL: np.ndarray, answers: int) -> np.ndarray:
    """Returns that the last tokens of each row are its answers, bool ``[N, L]``."""
    length = tokens_NL.shape[1]
    return np.broadcast_to(np.arange(length) >= length - answers, tokens_NL.shape)


def separated(room: int, *parts: np.ndarray) -> np.ndarray:
    """Joins parts ``[N, any]`` to rows ``[N, room]``, with separators between and before them."""
    after_one = [np.pad(part, ((0, 0), (1, 0)), constant_values=SEPARATE) for part in parts]
    rows = np.concatenate(after_one, axis=1)[:, 1:]
    return np.pad(rows, ((0, 0), (room - rows.shape[1], 0)), constant_values=SEPARATE)


def distinct(rng: np.random.Generator, count: int, of: np.ndarray, size: int) -> np.ndarray:
    """Draws ``size`` different tokens for each row, ``[count, size]``."""
    return of[rng.random((count, len(of))).argsort(axis=1)[:, :size]]


def drawn_indices(
    rng: np.random.Generator, count: int, room: int, depth: float | None, size: int = 1
) -> np.ndarray:
    """Draws ``size`` different indices in ``0 .. room``, ascending, ``[count, size]``.

    One index alone can be given by its depth.
    """
    if depth is not None:
        return np.full((count, 1), round(depth * room))
    return np.sort(rng.random((count, room + 1)).argsort(axis=1)[:, :size], axis=1)


def in_noise(
    rng: np.random.Generator,
    groups_NGS: np.ndarray,
    room: int,
    end: int,
    depth: float | None = None,
) -> np.ndarray:
    """Returns rows of noise with groups of S tokens in their order at random places, ``[N, room]``.

    The last ``end`` tokens of a row have no group. ``depth`` is as in ``drawn_indices``.
    """
    count, groups, size = groups_NGS.shape
    tokens = rng.choice(NOISE, (count, room))
    # Each group is drawn as if it were one token; then the groups are moved apart.
    last = room - end - groups * (size - 1) - 1
    first_NG = drawn_indices(rng, count, last, depth, groups) + (size - 1) * np.arange(groups)
    at_NGS = first_NG[..., None] + np.arange(size)
    np.put_along_axis(tokens, at_NGS.reshape(count, -1), groups_NGS.reshape(count, -1), axis=1)
    return tokens
