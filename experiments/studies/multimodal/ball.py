"""Makes the world of the story experiment: a ball on a smooth path, and clips of the ball."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

REACH = 0.25  # how far the ball goes from the middle along an axis, in widths of a frame
PERIODS = (12.0, 48.0)  # the shortest and the longest period of an oscillation
OSCILLATIONS = 3  # along each axis
RADIUS = 1.5  # radius of the ball, in pixels


class Clips(NamedTuple):
    """Holds clips of a ball, each on a path of its own.

    The arrays have the clips along axis 0. Places are measured from the middle of the world, in
    frame widths.

    Attributes:
      waves: the oscillations that a path is the sum of, ``[N, 2, OSCILLATIONS, 3]``: size, radians
        a unit of time, and phase, along x and y.
      times: times of the frames, ``[N, F]``.
      asked: times of the questions, ``[N, Q]``.
      cameras: the middle of each frame, ``[N, F, 2]``.
    """

    waves: np.ndarray
    times: np.ndarray
    asked: np.ndarray
    cameras: np.ndarray

    @classmethod
    def draw(cls, rng, times, questions: int, view: float) -> "Clips":
        """Draws random paths, questions and cameras for clips at ``times``."""
        count, frames = times.shape
        shape = (count, 2, OSCILLATIONS)
        size = REACH * rng.dirichlet(np.ones(OSCILLATIONS), shape[:2])
        speed = 2 * np.pi / np.exp(rng.uniform(*np.log(PERIODS), shape))
        waves = np.stack([size, speed, rng.uniform(0, 2 * np.pi, shape)], axis=-1)
        low, high = times.min(axis=1, keepdims=True), times.max(axis=1, keepdims=True)
        asked = rng.uniform(low, high, (count, questions))
        return cls(waves, times, asked, film(rng, view, count, frames))

    def repeated(self, times: int, **changes: np.ndarray) -> "Clips":
        """Returns each clip in as many adjacent rows, with some arrays changed."""
        return Clips(*(np.repeat(x, times, axis=0) for x in self))._replace(**changes)

    def places(self, times) -> np.ndarray:
        """Returns where the ball is at ``times`` ``[N, T]``, as ``[N, T, 2]``."""
        size, speed, phase = np.moveaxis(self.waves[:, None], -1, 0)
        return (size * np.sin(speed * times[:, :, None, None] + phase)).sum(axis=-1)

    @property
    def answers(self) -> np.ndarray:
        """Returns where the ball is at the times of the questions, ``[N, Q, 2]``."""
        return self.places(self.asked)

    def frames(self, side: int) -> np.ndarray:
        """Returns pictures from 0 to 1, ``[N, F, side, side]``."""
        centre_NF2 = side * (self.places(self.times) - self.cameras + 0.5) - 0.5
        away = np.arange(side) - centre_NF2[..., None]
        x, y = np.moveaxis(np.exp(-0.5 * (away / RADIUS) ** 2), 2, 0)
        return y[..., :, None] * x[..., None, :]


def film(rng, view: float, count: int, frames: int) -> np.ndarray:
    """Returns cameras ``[count, frames, 2]`` that go straight from one random place to another."""
    first, last = rng.uniform(-view, view, (2, count, 1, 2))
    return first + (last - first) * np.linspace(0, 1, frames)[:, None]


# The ways in which clips run. Each function takes a generator, the slowest and the fastest pace,
# and the numbers of clips and of frames. It returns the times of frames, [count, frames]; the least
# or the first time is 0.


def steady(rng, paces, count: int, frames: int) -> np.ndarray:
    """Runs every clip at a pace of its own."""
    return rng.uniform(*paces, (count, 1)) * np.arange(frames)


def uneven(rng, paces, count: int, frames: int) -> np.ndarray:
    """Takes every step at a pace of its own."""
    steps = rng.uniform(*paces, (count, frames - 1))
    return np.pad(np.cumsum(steps, axis=1), ((0, 0), (1, 0)))


def pause(rng, paces, count: int, frames: int) -> np.ndarray:
    """Stands still for the middle third."""
    moving = np.arange(1, frames)
    moves = (moving < frames / 3) | (moving >= 2 * frames / 3)
    pace = steady(rng, paces, count, 2)[:, 1:]
    return pace * np.concatenate([[0], np.cumsum(moves)])


def reverse(rng, paces, count: int, frames: int) -> np.ndarray:
    """Runs backwards."""
    return steady(rng, paces, count, frames)[:, ::-1]


def random(rng, paces, count: int, frames: int) -> np.ndarray:
    """Runs as ``uneven``, with one step in four backwards and one in eight a pause."""
    steps = np.diff(uneven(rng, paces, count, frames), axis=1)
    chance = rng.uniform(0, 1, steps.shape)
    steps = np.where(chance < 0.25, -steps, np.where(chance < 0.375, 0, steps))
    return np.pad(np.cumsum(steps, axis=1), ((0, 0), (1, 0)))


WARPS: dict[str, Callable] = {
    warp.__name__: warp for warp in (steady, uneven, pause, reverse, random)
}
