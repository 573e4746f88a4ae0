r"""Position Interpolation rotates all pairs more slowly, as if positions were closer together.

https://arxiv.org/abs/2306.15595

$$ \theta'_i = \frac{\theta_i}{s} $$

The factor s is fixed in ``PositionInterpolation``, and ``max(T / L, 1)`` in ``DynamicPI``, where T
is the current length and L the training length.
"""

import dataclasses
from typing import Unpack

from posenc_jax.checks import check_range, count_of
from posenc_jax.encodings.rotary.frequencies.base import (
    Frequencies,
    Length,
    Rates,
    geometric,
    growth,
)
from posenc_jax.encodings.rotary.rope import RoPE, Rotating


@dataclasses.dataclass(frozen=True)
class PositionInterpolationFrequencies(Frequencies):
    """Divides the frequency of every pair by ``factor``."""

    factor: float

    def __post_init__(self):
        check_range(1, factor=self.factor)

    def __call__(self, channels: int, base: float, length: Length) -> Rates:
        return geometric(channels, base) / self.factor, 1.0


class PositionInterpolation(RoPE):
    """Position Interpolation (2306.15595) makes every pair ``factor`` times slower.

    Args:
      factor: s, target length / train length.
    """

    def __init__(self, *, head_dim: int, factor: float, **rope: Unpack[Rotating]):
        rule = PositionInterpolationFrequencies(factor)
        super().__init__(head_dim=head_dim, frequencies=rule, **rope)


@dataclasses.dataclass(frozen=True)
class DynamicPIFrequencies(Frequencies):
    """Divides the frequency of every pair by how far the length exceeds ``train_length``."""

    train_length: int

    def __post_init__(self):
        count_of("train_length", self.train_length)

    def __call__(self, channels: int, base: float, length: Length) -> Rates:
        shrink = 1.0 / growth(length, self.train_length)
        return geometric(channels, base) * shrink, 1.0


class DynamicPI(RoPE):
    """Dynamic Position Interpolation makes every pair ``max(T / L, 1)`` times slower.

    T is the current length.
    """

    def __init__(self, *, head_dim: int, train_length: int, **rope: Unpack[Rotating]):
        rule = DynamicPIFrequencies(train_length)
        super().__init__(head_dim=head_dim, frequencies=rule, **rope)
