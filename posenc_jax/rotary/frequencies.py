"""The first dial of the rotary family: how fast each channel pair turns.

Every class here is a function ``(channels, base, length) -> (inv_freq, attention_factor)``, held
as a frozen dataclass so that a module carrying it compares equal to another with the same numbers
and ``jax.jit`` compiles once for both.

``inv_freq`` is in radians per token, ``channels // 2`` of them along its last axis, the fastest
first, as float64 NumPy; only the schemes that adapt to ``length`` return a JAX array where
``length`` is one. ``attention_factor`` multiplies cos and sin, so logits grow by its square.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np


def geometric(channels: int, base):
    """RoPE's own frequencies (2104.09864): ``base ** (-2 i / channels)``, pair i = 0 first.

    A JAX array of bases keeps its axes, and the pairs come after them.
    """
    exponents = np.arange(0, channels, 2, dtype=np.float64) / channels
    if not isinstance(base, jax.Array):
        return base**-exponents
    exponents = exponents.reshape((1,) * base.ndim + (-1,))
    return base[..., None] ** -jnp.asarray(exponents, jnp.float32)


def turns_in(length, inv_freq):
    """Full turns each pair makes within ``length`` tokens."""
    return length * inv_freq / (2 * math.pi)


def _check_factor(factor):
    if not (isinstance(factor, (int, float)) and math.isfinite(factor) and factor >= 1):
        raise ValueError(
            f"factor={factor!r} must be a finite number >= 1: target length / train length"
        )


def _ntk_base(channels: int, base, scale):
    """The base at which the slowest pair is slowed down by ``scale`` and the fastest not at all."""
    if channels < 4:
        raise ValueError(
            f"NTK scaling needs at least 4 rotary channels, not {channels}: it spreads the factor "
            "between the fastest and the slowest pair"
        )
    return base * scale ** (channels / (channels - 2))


@dataclasses.dataclass(frozen=True)
class Default:
    """RoPE (2104.09864)."""

    def __call__(self, channels, base, length):
        return geometric(channels, base), 1.0


@dataclasses.dataclass(frozen=True)
class PositionInterpolation:
    """Position Interpolation (2306.15595): every pair is ``factor`` times slower."""

    factor: float = 4.0

    def __post_init__(self):
        _check_factor(self.factor)

    def __call__(self, channels, base, length):
        return geometric(channels, base) / self.factor, 1.0


@dataclasses.dataclass(frozen=True)
class NTK:
    """NTK-aware scaling (bloc97, 2023): a larger base, ``base * factor ** (d / (d - 2))``.

    Pairs in the middle are interpolated less than ``factor``, so it reaches less far than its
    name says. "NTK" in 2310.05209 and in LongRoPE's tables is another rule.
    """

    factor: float = 4.0

    def __post_init__(self):
        _check_factor(self.factor)

    def __call__(self, channels, base, length):
        return geometric(channels, _ntk_base(channels, base, self.factor)), 1.0


@dataclasses.dataclass(frozen=True)
class DynamicNTK:
    """Dynamic NTK (emozilla, 2023; ``dynamic`` in Hugging Face).

    Past the training length L the base grows with the current length T, with
    ``factor * T / L - (factor - 1)`` in the place of NTK's factor. ``factor`` is not the scale:
    at T = 2 L a factor of 2 scales by 3, and a factor of 1 gives plain T / L.
    """

    train_length: int
    factor: float = 1.0

    def __post_init__(self):
        _check_factor(self.factor)

    def __call__(self, channels, base, length):
        xp = jnp if isinstance(length, jax.Array) else np
        excess = xp.maximum(length / self.train_length, 1.0) - 1.0
        return geometric(channels, _ntk_base(channels, base, 1.0 + self.factor * excess)), 1.0


@dataclasses.dataclass(frozen=True)
class YaRN:
    """YaRN (2309.00071): interpolate the slow pairs, keep the fast ones, sharpen the softmax.

    A pair that turns at least ``beta_fast`` times within the training length is kept, one that
    turns at most ``beta_slow`` times is divided by ``factor``, and between them a ramp blends.

    Attributes:
      train_length: tokens of a training sequence, L.
      factor: target length / train length.
      beta_fast, beta_slow: the two bounds, in turns.
      ramp: "index" runs the ramp linearly over the pair number, as all released code does and
        checkpoints expect; "turns" linearly over the number of turns, as the paper writes it. In
        the middle they differ by up to a factor of three.
      truncate: round the ramp's ends outwards to whole pairs (all but gpt-oss); "index" only.
      attention_factor: multiplies cos and sin; default ``0.1 ln(factor) + 1``.
      mscale, mscale_all_dim: DeepSeek's pair; with both, the default is the ratio of
        ``0.1 m ln(factor) + 1`` at each. DeepSeek also scales the softmax by the second squared;
        that belongs to its attention, not to this table.
    """

    train_length: int
    factor: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    ramp: str = "index"
    truncate: bool = True
    attention_factor: float | None = None
    mscale: float | None = None
    mscale_all_dim: float | None = None

    def __post_init__(self):
        _check_factor(self.factor)
        if self.ramp not in ("index", "turns"):
            raise ValueError(f"ramp={self.ramp!r} must be 'index' or 'turns'")
        if not self.beta_fast > self.beta_slow > 0:
            raise ValueError(
                f"beta_fast={self.beta_fast} must be larger than beta_slow={self.beta_slow}, "
                "and both positive: they are numbers of turns"
            )

    def __call__(self, channels, base, length):
        inv_freq = geometric(channels, base)
        if self.ramp == "index":
            slow = self._index_ramp(channels, base)
        else:
            turns = turns_in(self.train_length, inv_freq)
            slow = 1 - np.clip((turns - self.beta_slow) / (self.beta_fast - self.beta_slow), 0, 1)
        inv_freq = inv_freq * (1 - slow) + inv_freq / self.factor * slow
        return inv_freq, self._attention_factor()

    def _index_ramp(self, channels, base):
        def pair_that_turns(times):
            wavelength_ratio = self.train_length / (times * 2 * math.pi)
            return channels * math.log(wavelength_ratio) / (2 * math.log(base))

        low, high = pair_that_turns(self.beta_fast), pair_that_turns(self.beta_slow)
        if self.truncate:
            low, high = math.floor(low), math.ceil(high)
        # The released code clamps to channels - 1, though there are only channels / 2 pairs.
        low, high = max(low, 0), min(high, channels - 1)
        if low == high:
            high += 0.001
        return np.clip((np.arange(channels // 2) - low) / (high - low), 0, 1)

    def _attention_factor(self):
        def temperature(mscale):
            return 0.1 * mscale * math.log(self.factor) + 1.0

        if self.attention_factor is not None:
            return self.attention_factor
        if self.mscale and self.mscale_all_dim:
            return temperature(self.mscale) / temperature(self.mscale_all_dim)
        return temperature(1.0)


@dataclasses.dataclass(frozen=True)
class HoPE:
    """HoPE, high-frequency rotary encoding (2410.21216): slow pairs carry content only.

    A pair is kept if it makes more than ``cut_cycles`` turns within the training length, and does
    not rotate otherwise. No official code is known; the cut follows two independent readings of
    the paper. The fastest pair is always kept (our choice, for very short lengths).
    """

    train_length: int
    cut_cycles: float = 1.0

    def __post_init__(self):
        if not 0 <= self.cut_cycles < math.inf:
            raise ValueError(f"cut_cycles={self.cut_cycles!r} must be a number of turns, 0 or more")

    def __call__(self, channels, base, length):
        inv_freq = geometric(channels, base)
        kept = turns_in(self.train_length, inv_freq) > self.cut_cycles
        kept[0] = True
        return np.where(kept, inv_freq, 0.0), 1.0


@dataclasses.dataclass(frozen=True)
class Proportional:
    """p-RoPE (2410.06205; ``proportional`` in Hugging Face): keep the fastest ``fraction``.

    Unlike partial rotary, the exponents still count all ``channels``.
    """

    fraction: float = 0.75
    factor: float = 1.0

    def __post_init__(self):
        _check_factor(self.factor)
        if not 0 < self.fraction <= 1:
            raise ValueError(f"fraction={self.fraction!r} must be in (0, 1]")

    def __call__(self, channels, base, length):
        kept = np.arange(channels // 2) < int(self.fraction * channels // 2)
        return np.where(kept, geometric(channels, base), 0.0) / self.factor, 1.0
