r"""YaRN interpolates the slow pairs, keeps the fast ones, and sharpens the softmax.

https://arxiv.org/abs/2309.00071

$$
\theta'_i = (1 - \rho_i)\, \theta_i + \rho_i\, \frac{\theta_i}{s}, \quad
\rho_i = \mathrm{clip}\Big(\frac{i - i_{\beta_f}}{i_{\beta_s} - i_{\beta_f}},\ 0,\ 1\Big), \quad
i_\beta = \frac{d}{2} \cdot \frac{\ln(L / 2 \pi \beta)}{\ln b}
$$

Pair i_beta turns beta times within the training length L: beta_f times where the ramp rho begins,
and beta_s times where it ends. Cosines and sines are multiplied by ``0.1 ln(s) + 1``.
"""

import dataclasses
import math
from typing import Unpack

import jax.numpy as jnp
import numpy as np

from posenc_jax.checks import check_ascending, check_choice, check_positive, check_range, count_of
from posenc_jax.encodings.lib.double import Double
from posenc_jax.encodings.rotary.frequencies.base import (
    Frequencies,
    Length,
    Rates,
    geometric,
    growth,
    interpolated,
    turns_in,
)
from posenc_jax.encodings.rotary.frequencies.by_parts import unscaled_by_turns
from posenc_jax.encodings.rotary.rope import RoPE, Rotating


@dataclasses.dataclass(frozen=True)
class YaRNFrequencies(Frequencies):
    """Interpolates the slow pairs; the attributes are the arguments of ``YaRN``."""

    train_length: int
    factor: float
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    ramp: str = "index"
    truncate: bool = True
    attention_factor: float | None = None
    mscale: float | None = None
    mscale_all_dim: float | None = None

    def __post_init__(self):
        count_of("train_length", self.train_length)
        check_range(1, factor=self.factor)
        check_choice(("index", "turns"), ramp=self.ramp)
        check_ascending(beta_slow=self.beta_slow, beta_fast=self.beta_fast)
        check_positive(attention_factor=self.attention_factor)
        check_positive(mscale=self.mscale, mscale_all_dim=self.mscale_all_dim)
        if (self.mscale is None) != (self.mscale_all_dim is None):
            raise ValueError(
                f"mscale={self.mscale!r} and mscale_all_dim={self.mscale_all_dim!r} must both be "
                "given, or none: one alone would change nothing"
            )

    def __call__(self, channels: int, base: float, length: Length) -> Rates:
        unscaled = self.unscaled(channels, base)
        inv_freq = interpolated(geometric(channels, base), unscaled, self.factor)
        return inv_freq, self._attention_factor()

    def unscaled(self, channels: int, base: float) -> np.ndarray:
        """Returns the share of each pair that is not interpolated, whatever ``factor`` is."""
        if self.ramp == "index":
            turns = self.beta_fast, self.beta_slow
            low, high = ramp_ends(channels, base, self.train_length, turns, self.truncate)
            return 1 - np.clip((np.arange(channels // 2) - low) / (high - low), 0, 1)
        turns_of_pairs = turns_in(self.train_length, geometric(channels, base))
        return unscaled_by_turns(turns_of_pairs, self.beta_slow, self.beta_fast)

    def _attention_factor(self):
        def temperature(mscale):
            return 0.1 * mscale * math.log(self.factor) + 1.0

        if self.attention_factor is not None:
            return self.attention_factor
        if self.mscale is not None and self.mscale_all_dim is not None:
            return temperature(self.mscale) / temperature(self.mscale_all_dim)
        return temperature(1.0)


class YaRN(RoPE):
    """Interpolates the slow pairs, keeps the fast ones, and sharpens the softmax (2309.00071).

    Args:
      train_length: L, number of tokens in a training sequence.
      factor: target length / train length.
      beta_fast: the turns within L from which a pair is kept.
      beta_slow: the turns within L up to which a pair is divided by the factor. It may equal
        ``beta_fast``, as in Kimi-K2.
      ramp: "index" makes the ramp linear in the pair's index, as in all released code and for its
        checkpoints; "turns" makes it linear in the number of turns, as in the paper. The
        frequencies of pairs in the middle differ by up to a factor of three.
      truncate: whether to round the ramp's ends outwards to whole pairs, as all but gpt-oss do;
        for "index" only.
      attention_factor: factor of cosine and sine; default ``0.1 ln(factor) + 1``.
      mscale, mscale_all_dim: DeepSeek's two settings. With f(m) = ``0.1 m ln(factor) + 1`` the
        default attention factor is f(mscale) / f(mscale_all_dim). DeepSeek also multiplies logits
        by f(mscale_all_dim) squared, in its attention and not in this encoding.
    """

    def __init__(
        self,
        *,
        head_dim: int,
        train_length: int,
        factor: float,
        beta_fast: float = 32.0,
        beta_slow: float = 1.0,
        ramp: str = "index",
        truncate: bool = True,
        attention_factor: float | None = None,
        mscale: float | None = None,
        mscale_all_dim: float | None = None,
        **rope: Unpack[Rotating],
    ):
        rule = YaRNFrequencies(
            train_length,
            factor,
            beta_fast=beta_fast,
            beta_slow=beta_slow,
            ramp=ramp,
            truncate=truncate,
            attention_factor=attention_factor,
            mscale=mscale,
            mscale_all_dim=mscale_all_dim,
        )
        super().__init__(head_dim=head_dim, frequencies=rule, **rope)


@dataclasses.dataclass(frozen=True)
class DynamicYaRNFrequencies(Frequencies):
    """Interpolates the slow pairs by a factor that follows the length."""

    train_length: int
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    ramp: str = "index"
    truncate: bool = True
    attention_factor: float | None = None

    def __post_init__(self):
        self._yarn()

    def __call__(self, channels: int, base: float, length: Length) -> Rates:
        factor = growth(length, self.train_length)
        unscaled = self._yarn().unscaled(channels, base)
        inv_freq = interpolated(geometric(channels, base), unscaled, factor)
        if self.attention_factor is not None:
            return inv_freq, self.attention_factor
        log = jnp.log(factor.high) if isinstance(factor, Double) else math.log(factor)
        return inv_freq, 0.1 * log + 1.0

    def _yarn(self):
        """Returns YaRN with these bounds, which checks them and computes which pairs they keep."""
        return YaRNFrequencies(
            self.train_length,
            factor=1.0,  # which pairs are kept does not depend on it
            beta_fast=self.beta_fast,
            beta_slow=self.beta_slow,
            ramp=self.ramp,
            truncate=self.truncate,
            attention_factor=self.attention_factor,
        )


class DynamicYaRN(RoPE):
    r"""Dynamic YaRN (2309.00071) is YaRN with a factor that follows the current length T.

    $$ s = \max(T / L, 1) $$

    The attention factor, ``0.1 ln(T / L) + 1`` past L, follows the length too unless
    ``attention_factor`` is given. The other arguments are YaRN's. The released code keeps the
    factor of the longest sequence so far; here each forward pass, and each packed document, has its
    own length.
    """

    def __init__(
        self,
        *,
        head_dim: int,
        train_length: int,
        beta_fast: float = 32.0,
        beta_slow: float = 1.0,
        ramp: str = "index",
        truncate: bool = True,
        attention_factor: float | None = None,
        **rope: Unpack[Rotating],
    ):
        rule = DynamicYaRNFrequencies(
            train_length, beta_fast, beta_slow, ramp, truncate, attention_factor
        )
        super().__init__(head_dim=head_dim, frequencies=rule, **rope)


def ramp_ends(
    channels: int, base: float, train_length: int, turns: tuple[float, float], truncate: bool = True
) -> tuple[float, float]:
    """Returns the indices of the pairs that turn so many times within the training length.

    The larger number of turns comes first. ``truncate`` rounds its pair down and the other up.
    """

    def pair_that_turns(times):
        wavelength_ratio = train_length / (times * 2 * math.pi)
        return channels * math.log(wavelength_ratio) / (2 * math.log(base))

    low, high = (pair_that_turns(times) for times in turns)
    if truncate:
        low, high = math.floor(low), math.ceil(high)
    # The released code clamps to channels - 1, though there are only channels / 2 pairs.
    low, high = max(low, 0), min(high, channels - 1)
    return low, high + 0.001 * (low == high)
