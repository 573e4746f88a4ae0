r"""Position Interpolation rotates all pairs more slowly, as if positions were closer together.

https://arxiv.org/abs/2306.15595

$$ \theta'_i = \frac{\theta_i}{s} $$

The factor s is fixed in ``PositionInterpolation``, and ``max(T / L, 1)`` in ``DynamicPI``, where T
is the current length and L the training length.
"""

import dataclasses

from posenc_jax.checks import check_range, count_of
from posenc_jax.encodings.rotary.frequencies.base import (
    Frequencies,
    Length,
    Rates,
    geometric,
    growth,
)


@dataclasses.dataclass(frozen=True)
class PositionInterpolation(Frequencies):
    """Position Interpolation (2306.15595) makes every pair ``factor`` times slower.

    Attributes:
      factor: s, target length / train length.
    """

    factor: float

    def __post_init__(self):
        check_range(1, factor=self.factor)

    def __call__(self, channels: int, base: float, length: Length) -> Rates:
        return geometric(channels, base) / self.factor, 1.0


@dataclasses.dataclass(frozen=True)
class DynamicPI(Frequencies):
    """Dynamic Position Interpolation makes every pair ``max(T / L, 1)`` times slower.

    T is the current length.
    """

    train_length: int

    def __post_init__(self):
        count_of("train_length", self.train_length)

    def __call__(self, channels: int, base: float, length: Length) -> Rates:
        shrink = 1.0 / growth(length, self.train_length)
        return geometric(channels, base) * shrink, 1.0
