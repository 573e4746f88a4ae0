"""Defines the base class of frequency rules, and the arithmetic that they share."""

import abc
import dataclasses
import math
import numbers
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from posenc_jax.checks import in_python, is_real
from posenc_jax.encodings.lib.double import Double

# A Python number is computed with in float64, and an array as a Double.
Length = float | jax.Array
# Radians per token, the fastest pair first.
InvFreq = np.ndarray | Double
# The frequencies, and the attention factor.
Rates = tuple[InvFreq, float | jax.Array]


@dataclasses.dataclass(frozen=True)
class Frequencies(abc.ABC):
    """Says how fast each channel pair rotates.

    A subclass is a frozen dataclass too, so that two rules with the same attributes are equal and
    ``jax.jit`` compiles once for both.
    """

    @abc.abstractmethod
    def __call__(self, channels: int, base: float, length: Length) -> Rates:
        """Returns the frequencies of ``channels // 2`` pairs and the attention factor.

        The attention factor multiplies cosine and sine, so logits grow by its square.

        Args:
          channels: rotary channels of one head.
          base: base of the frequencies.
          length: the length to adapt to: a number, or an array ``[B, T]`` with a length for each
            token, where either axis may be 1. A rule that adapts to an array gives the frequencies
            as a ``Double`` ``[B, T, channels // 2]``, and an attention factor that depends on it
            as ``[B, T, 1]``.
        """

    def adapts(self, channels: int, base: float) -> bool:
        """Returns whether the frequencies or the attention factor depend on the length."""
        rates: Any = [self(channels, base, length) for length in (1.0, 2.0**22)]
        (inv_freq, factor), (other, other_factor) = rates
        return factor != other_factor or not np.array_equal(inv_freq, other)


@dataclasses.dataclass(frozen=True)
class Default(Frequencies):
    """Gives RoPE's own frequencies (2104.09864), the same at every length."""

    def __call__(self, channels: int, base: float, length: Length) -> Rates:
        return geometric(channels, base), 1.0


def geometric(channels: int, base: float) -> np.ndarray:
    """Returns RoPE's frequencies, ``base ** (-2 i / channels)``, pair i = 0 first."""
    return float(base) ** (-np.arange(0, channels, 2, dtype=np.float64) / channels)


def turns_in(length: float, inv_freq: np.ndarray) -> np.ndarray:
    """Returns how many full turns each pair makes within ``length`` tokens."""
    return length * inv_freq / (2 * math.pi)


def growth(length: Length, train_length: int) -> float | Double:
    """Returns ``length / train_length``, at least 1.

    An array ``[B, T]`` gives a ``Double`` ``[B, T, 1]``.
    """
    if isinstance(length, numbers.Real):
        return max(float(length) / train_length, 1.0)
    times = Double.of(jnp.atleast_2d(length)[..., None]) / train_length
    return times.where(~(times.high < 1), 1.0)


def interpolated(inv_freq: InvFreq, unscaled: np.ndarray, factor: float | Double) -> InvFreq:
    """Divides the frequencies by ``factor``, but for the share ``unscaled`` of each."""
    return inv_freq * (unscaled + (1.0 - unscaled) / factor)


def checked_base(base: float, name: str = "base") -> float:
    """Returns ``base`` as a float; ``name`` is its name in errors."""
    is_known = is_real(base) and not isinstance(base, jax.core.Tracer)
    if not is_known or not 1 < in_python(base) < math.inf:
        raise ValueError(f"{name}={base!r} must be one number above 1, and finite")
    return float(base)
