r"""NTK-aware scaling enlarges the base, which slows down slow pairs more than fast ones.

bloc97 (2023) for NTK, emozilla (2023) for dynamic NTK: posts without a paper

$$ \theta'_i = b'^{\,-2i/d} $$

The three rules here differ in the base b'. L is the training length.
"""

import dataclasses
import math
from typing import Unpack

import numpy as np

from posenc_jax.checks import check_range, count_of
from posenc_jax.encodings.lib.double import Double, exp, log
from posenc_jax.encodings.rotary.frequencies.base import (
    Frequencies,
    InvFreq,
    Length,
    Rates,
    geometric,
    growth,
)
from posenc_jax.encodings.rotary.rope import RoPE, Rotating


@dataclasses.dataclass(frozen=True)
class NTKFrequencies(Frequencies):
    """Divides the frequency of the slowest pair by ``factor``."""

    factor: float

    def __post_init__(self):
        check_range(1, factor=self.factor)

    def __call__(self, channels: int, base: float, length: Length) -> Rates:
        return _with_slowest(channels, base, self.factor), 1.0


class NTK(RoPE):
    r"""NTK-aware scaling (bloc97, 2023) makes the slowest pair slower by ``factor``.

    $$ b' = b \cdot s^{d/(d-2)} $$

    Pairs in the middle are slowed down by less than ``factor``, so the context grows by less, too.
    "NTK" in 2310.05209 and in LongRoPE2's tables is another rule, ``NTKCritical``.

    Args:
      factor: s, by which the slowest pair is slowed down.
    """

    def __init__(self, *, head_dim: int, factor: float, **rope: Unpack[Rotating]):
        super().__init__(head_dim=head_dim, frequencies=NTKFrequencies(factor), **rope)


@dataclasses.dataclass(frozen=True)
class DynamicNTKFrequencies(Frequencies):
    """Slows the slowest pair down by more, the longer the sequence is."""

    train_length: int
    factor: float = 1.0

    def __post_init__(self):
        count_of("train_length", self.train_length)
        check_range(1, factor=self.factor)

    def __call__(self, channels: int, base: float, length: Length) -> Rates:
        excess = growth(length, self.train_length) - 1.0
        return _with_slowest(channels, base, 1.0 + excess * self.factor), 1.0


class DynamicNTK(RoPE):
    r"""Dynamic NTK (emozilla, 2023; ``dynamic`` in Hugging Face) adapts to the current length T.

    $$ b' = b \cdot \Big(\frac{f\, T}{L} - (f - 1)\Big)^{d/(d-2)} \quad \text{for } T > L $$

    Past the training length L the base grows with T. The factor f is not the scale: at T = 2 L a
    factor of 2 scales by 3, and a factor of 1 gives plain T / L.

    Args:
      factor: f in the equation.
    """

    def __init__(
        self, *, head_dim: int, train_length: int, factor: float = 1.0, **rope: Unpack[Rotating]
    ):
        rule = DynamicNTKFrequencies(train_length, factor)
        super().__init__(head_dim=head_dim, frequencies=rule, **rope)


@dataclasses.dataclass(frozen=True)
class NTKCriticalFrequencies(Frequencies):
    """Divides the frequency of the pair that turns once within ``train_length`` by ``factor``."""

    train_length: int
    factor: float

    def __post_init__(self):
        check_range(1, factor=self.factor)
        # The fastest pair needs 2 pi tokens for one turn, and no pair is critical without a turn.
        count_of("train_length", self.train_length, 7)

    def __call__(self, channels: int, base: float, length: Length) -> Rates:
        train = math.log(self.train_length / (2 * math.pi))
        exponents = np.arange(0, channels, 2) / channels * (1 + math.log(self.factor) / train)
        return base**-exponents, 1.0


class NTKCritical(RoPE):
    r"""The "NTK" of 2310.05209 has a base that slows the critical pair down by ``factor``.

    https://arxiv.org/abs/2310.05209

    $$ b' = b^{\ln(L' / 2 \pi) / \ln(L / 2 \pi)} $$

    The critical pair turns once within the training length L. The target length L' is
    ``factor * L``, and every slower pair is slowed down by more than ``factor``.

    Args:
      factor: target length / train length.
    """

    def __init__(
        self, *, head_dim: int, train_length: int, factor: float, **rope: Unpack[Rotating]
    ):
        rule = NTKCriticalFrequencies(train_length, factor)
        super().__init__(head_dim=head_dim, frequencies=rule, **rope)


def _with_slowest(channels: int, base: float, scale: float | Double) -> InvFreq:
    """Returns RoPE's frequencies with the slowest pair slowed down by ``scale``, the fastest not.

    It is RoPE at the base ``base * scale ** (channels / (channels - 2))``.
    """
    count_of("rotary_dim", channels, 4)  # The factor is spread between two pairs or more.
    exponents = -np.arange(0, channels, 2) / (channels - 2)
    slowed = exp(log(scale) * exponents) if isinstance(scale, Double) else scale**exponents
    return geometric(channels, base) * slowed
