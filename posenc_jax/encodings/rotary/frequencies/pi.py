"""Position Interpolation turns all pairs more slowly, as if positions were closer together.

https://arxiv.org/abs/2306.15595

    PositionInterpolation   base ** (-2 i / d) / factor
    DynamicPI               base ** (-2 i / d) / max(T / L, 1)

T is the current length and L the training length.
"""

import dataclasses

from posenc_jax.encodings.rotary.frequencies.base import (
    Base,
    Frequencies,
    Length,
    Turns,
    check_factor,
    geometric,
    growth,
)


@dataclasses.dataclass(frozen=True)
class PositionInterpolation(Frequencies):
    """Position Interpolation (2306.15595) makes every pair ``factor`` times slower."""

    factor: float = 4.0

    def __post_init__(self):
        check_factor(self.factor)

    def __call__(self, channels: int, base: Base, length: Length) -> Turns:
        return geometric(channels, base) / self.factor, 1.0


@dataclasses.dataclass(frozen=True)
class DynamicPI(Frequencies):
    """Dynamic Position Interpolation makes every pair ``max(T / L, 1)`` times slower.

    T is the current length, and L is ``train_length``.
    """

    train_length: int

    @property
    def adapts(self) -> bool:
        return True

    def __call__(self, channels: int, base: Base, length: Length) -> Turns:
        shrink = 1.0 / growth(length, self.train_length)
        return geometric(channels, base) * shrink, 1.0
