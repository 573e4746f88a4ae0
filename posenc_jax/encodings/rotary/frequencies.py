"""The first dial of the rotary family: how fast each channel pair turns.

Every class here is a function ``(channels, base, length) -> (inv_freq, attention_factor)``, held
as a frozen dataclass so that a module carrying it compares equal to another with the same numbers
and ``jax.jit`` compiles once for both.

``inv_freq`` is in radians per token, ``channels // 2`` of them along its last axis, the fastest
first, as float64 NumPy. ``attention_factor`` multiplies cos and sin, so logits grow by its square.
``length`` is an int, or an array ``[B, T]`` (either axis may be 1) with a length for each token;
then the schemes that adapt to it return JAX arrays ``[B, T, channels // 2]`` and, for an attention
factor that depends on it, ``[B, T, 1]``.
"""

import dataclasses
import math
from collections.abc import Callable

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


def check_factor(factor):
    """Refuses a ``factor`` that does not lengthen anything."""
    if not (isinstance(factor, (int, float)) and math.isfinite(factor) and factor >= 1):
        raise ValueError(
            f"factor={factor!r} must be a finite number >= 1: target length / train length"
        )


def _check_turns(**bounds):
    """Refuses two bounds of a ramp, given by name, the faster first."""
    (fast, fast_turns), (slow, slow_turns) = bounds.items()
    if not fast_turns > slow_turns > 0:
        raise ValueError(
            f"{fast}={fast_turns} must be larger than {slow}={slow_turns}, "
            "and both positive: they are numbers of turns"
        )


def _growth(length, train_length: int):
    """How many times the training length fits into ``length``, and at least 1."""
    xp = jnp if isinstance(length, jax.Array) else np
    return xp.maximum(length / train_length, 1.0)


def _kept_by_turns(turns, slow: float, fast: float):
    """The share of each pair that stays as it is: from 0 at ``slow`` turns to 1 at ``fast``."""
    return np.clip((turns - slow) / (fast - slow), 0, 1)


def _interpolated(inv_freq, kept, factor):
    """Every pair ``factor`` times slower, but for the share of it that is ``kept``."""
    if isinstance(factor, jax.Array):
        shape = (1,) * factor.ndim + (-1,)
        inv_freq, kept = (jnp.asarray(x, jnp.float32).reshape(shape) for x in (inv_freq, kept))
        factor = factor[..., None]
    return inv_freq * (kept + (1 - kept) / factor)


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
        check_factor(self.factor)

    def __call__(self, channels, base, length):
        return geometric(channels, base) / self.factor, 1.0


@dataclasses.dataclass(frozen=True)
class DynamicPI:
    """Dynamic Position Interpolation: PI by T / L, T being the current length, past L only."""

    train_length: int

    def __call__(self, channels, base, length):
        factor = _growth(length, self.train_length)
        return _interpolated(geometric(channels, base), 0.0, factor), 1.0


@dataclasses.dataclass(frozen=True)
class NTK:
    """NTK-aware scaling (bloc97, 2023): a larger base, ``base * factor ** (d / (d - 2))``.

    Pairs in the middle are interpolated less than ``factor``, so it reaches less far than its
    name says. "NTK" in 2310.05209 and in LongRoPE2's tables is another rule, ``NTKCritical``.
    """

    factor: float = 4.0

    def __post_init__(self):
        check_factor(self.factor)

    def __call__(self, channels, base, length):
        return geometric(channels, _ntk_base(channels, base, self.factor)), 1.0


@dataclasses.dataclass(frozen=True)
class NTKCritical:
    """The "NTK" of 2310.05209: a base that slows the critical pair down by ``factor``.

    That pair is the one that turns once within the training length L. The base becomes
    ``base ** (ln(L' / 2 pi) / ln(L / 2 pi))`` with the target length ``L' = factor * L``, and every
    slower pair is slowed down by more than ``factor``.
    """

    train_length: int
    factor: float = 4.0

    def __post_init__(self):
        check_factor(self.factor)
        if self.train_length < 7:
            raise ValueError(
                f"train_length={self.train_length} must be at least 7: the fastest pair needs "
                "2 pi tokens for one turn, and there is no critical pair without a turn"
            )

    def __call__(self, channels, base, length):
        train = math.log(self.train_length / (2 * math.pi))
        target = train + math.log(self.factor)
        return geometric(channels, base ** (target / train)), 1.0


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
        check_factor(self.factor)

    def __call__(self, channels, base, length):
        excess = _growth(length, self.train_length) - 1.0
        return geometric(channels, _ntk_base(channels, base, 1.0 + self.factor * excess)), 1.0


@dataclasses.dataclass(frozen=True)
class NTKByParts:
    """NTK-by-parts (2309.00071, section 3.2): YaRN's frequencies as the paper writes them.

    A pair that turns ``beta`` times or more within the training length is kept, one that turns
    ``alpha`` times or less is divided by ``factor``, and between them the share that is kept grows
    linearly with the turns. No temperature. The class of this name in the authors' first release,
    which blends RoPE, PI and NTK with other bounds, is not this formula and is not offered.
    """

    train_length: int
    factor: float = 4.0
    alpha: float = 1.0
    beta: float = 32.0

    def __post_init__(self):
        check_factor(self.factor)
        _check_turns(beta=self.beta, alpha=self.alpha)

    def __call__(self, channels, base, length):
        inv_freq = geometric(channels, base)
        turns = turns_in(self.train_length, inv_freq)
        return _interpolated(
            inv_freq, _kept_by_turns(turns, self.alpha, self.beta), self.factor
        ), 1.0


@dataclasses.dataclass(frozen=True)
class Llama3:
    """Llama 3.1's scaling (``llama3`` in Hugging Face): NTK-by-parts between 1 and 4 turns.

    Named as in its configuration: ``low_freq_factor`` is alpha and ``high_freq_factor`` is beta.
    3.2 has a factor of 32.
    """

    train_length: int
    factor: float = 8.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0

    def __post_init__(self):
        check_factor(self.factor)
        _check_turns(high_freq_factor=self.high_freq_factor, low_freq_factor=self.low_freq_factor)

    def __call__(self, channels, base, length):
        by_parts = NTKByParts(
            self.train_length, self.factor, alpha=self.low_freq_factor, beta=self.high_freq_factor
        )
        return by_parts(channels, base, length)


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
        check_factor(self.factor)
        if self.ramp not in ("index", "turns"):
            raise ValueError(f"ramp={self.ramp!r} must be 'index' or 'turns'")
        _check_turns(beta_fast=self.beta_fast, beta_slow=self.beta_slow)

    def __call__(self, channels, base, length):
        kept = self.kept(channels, base)
        return _interpolated(geometric(channels, base), kept, self.factor), self._attention_factor()

    def kept(self, channels, base):
        """The share of each pair that is not interpolated; it does not depend on ``factor``."""
        if self.ramp == "index":
            return 1 - self._index_ramp(channels, base)
        turns = turns_in(self.train_length, geometric(channels, base))
        return _kept_by_turns(turns, self.beta_slow, self.beta_fast)

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
class DynamicYaRN:
    """Dynamic YaRN (2309.00071): YaRN by T / L, T being the current length, past L only.

    The other attributes are YaRN's. The temperature, ``0.1 ln(T / L) + 1``, follows the length
    unless ``attention_factor`` is given. The released code remembers the longest sequence it has
    seen and never shrinks back; here each forward, and each packed document, has its own length.
    """

    train_length: int
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    ramp: str = "index"
    truncate: bool = True
    attention_factor: float | None = None

    def __post_init__(self):
        self._yarn()

    def __call__(self, channels, base, length):
        factor = _growth(length, self.train_length)
        kept = self._yarn().kept(channels, base)
        inv_freq = _interpolated(geometric(channels, base), kept, factor)
        if self.attention_factor is not None:
            return inv_freq, self.attention_factor
        if isinstance(factor, jax.Array):
            return inv_freq, (0.1 * jnp.log(factor) + 1.0)[..., None]
        return inv_freq, 0.1 * math.log(factor) + 1.0

    def _yarn(self):
        """Checks the bounds, and knows which pairs they keep."""
        return YaRN(
            self.train_length,
            beta_fast=self.beta_fast,
            beta_slow=self.beta_slow,
            ramp=self.ramp,
            truncate=self.truncate,
        )


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
        check_factor(self.factor)
        if not 0 < self.fraction <= 1:
            raise ValueError(f"fraction={self.fraction!r} must be in (0, 1]")

    def __call__(self, channels, base, length):
        kept = np.arange(channels // 2) < int(self.fraction * channels // 2)
        return np.where(kept, geometric(channels, base), 0.0) / self.factor, 1.0


@dataclasses.dataclass(frozen=True)
class Clipped:
    """Clipped RoPE (2602.05258, there "CoPE"): the slowest pairs are slowed down to a halt.

    Not contextual position encoding (2405.18719), which is also called CoPE.

    Attributes:
      clipped_pairs: how many of the slowest pairs. Default: 20 of every 64, as released for 64.
      taper: "cosine" multiplies their frequencies by a half cosine that falls from 1 at the first
        of them to 0 at the last (a single clipped pair is thus left as it is); "hard" by 0.
    """

    clipped_pairs: int | None = None
    taper: str = "cosine"

    def __post_init__(self):
        if self.clipped_pairs is not None and self.clipped_pairs < 1:
            raise ValueError(f"clipped_pairs={self.clipped_pairs} must be at least 1, or None")
        if self.taper not in ("cosine", "hard"):
            raise ValueError(f"taper={self.taper!r} must be 'cosine' or 'hard'")

    def __call__(self, channels, base, length):
        inv_freq = geometric(channels, base)
        count = self.clipped_pairs
        if count is None:
            count = round(len(inv_freq) * 20 / 64)
        if count > len(inv_freq):
            raise ValueError(
                f"clipped_pairs={count} must be at most {len(inv_freq)}, the pairs of "
                f"{channels} rotary channels"
            )
        left = 0.5 * (1 + np.cos(np.linspace(0, math.pi, count))) if self.taper == "cosine" else 0.0
        inv_freq[len(inv_freq) - count :] *= left
        return inv_freq, 1.0


@dataclasses.dataclass(frozen=True)
class Resonance:
    """Resonance RoPE (2403.00071): every wavelength is rounded to a whole number of tokens.

    A pair that has turned once within training then meets no new angle past it. The rounding comes
    after any other scaling: Resonance YaRN is ``Resonance(YaRN(train_length, factor))``, with
    YaRN's temperature.

    Attributes:
      frequencies: another member of this module, whose wavelengths are rounded. Default: RoPE's.
    """

    frequencies: Callable | None = None

    def __call__(self, channels, base, length):
        inv_freq, attention_factor = (self.frequencies or Default())(channels, base, length)
        xp = jnp if isinstance(inv_freq, jax.Array) else np
        # A pair that does not turn has no wavelength.
        turning = inv_freq > 0
        wavelength = xp.round(2 * math.pi / xp.where(turning, inv_freq, 1.0))
        return xp.where(turning, 2 * math.pi / wavelength, 0.0), attention_factor
