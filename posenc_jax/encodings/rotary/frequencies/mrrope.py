r"""MrRoPE, mixed-radix RoPE, slows the middle pairs down by one factor after the other.

https://arxiv.org/abs/2601.22181

$$
\theta'_i = \theta_i \prod_{j=l}^{i-1} \lambda_j^{-1}, \qquad
\lambda_j = s^{1/n} \ \text{(Uni)}, \quad
\lambda_j = s^{\,2(j - l + 1) / n(n+1)} \ \text{(Pro)}, \qquad l \le j < h
$$

Positions are numbers whose digits the pairs hold, and lambda is the factor by which the radix of a
digit grows. Pair l is the last that turns ``beta_fast`` times within the training length, pair h
the first that turns at most ``beta_slow`` times, and ``n = h - l``: the pairs up to l keep their
frequency, and the pairs from h on have it divided by s. Cosines and sines are multiplied by
``0.1 ln(s) + 1``, as in YaRN.
"""

import dataclasses
import math
from typing import Unpack

import numpy as np

from posenc_jax.checks import check_ascending, check_positive, check_range, count_of
from posenc_jax.encodings.rotary.frequencies.base import Frequencies, Length, Rates, geometric
from posenc_jax.encodings.rotary.frequencies.yarn import ramp_ends
from posenc_jax.encodings.rotary.rope import RoPE, Rotating


@dataclasses.dataclass(frozen=True)
class MrRoPEUniFrequencies(Frequencies):
    """Divides the frequencies of the middle pairs by equal factors, one after the other."""

    train_length: int
    factor: float
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float | None = None

    def __post_init__(self):
        count_of("train_length", self.train_length)
        check_range(1, factor=self.factor)
        check_ascending(beta_slow=self.beta_slow, beta_fast=self.beta_fast)
        check_positive(attention_factor=self.attention_factor)

    def __call__(self, channels: int, base: float, length: Length) -> Rates:
        low, high = ramp_ends(channels, base, self.train_length, (self.beta_fast, self.beta_slow))
        steps = np.clip(np.arange(channels // 2) - low, 0, high - low)
        inv_freq = geometric(channels, base) / self.factor ** self.exponents(steps, high - low)
        if self.attention_factor is not None:
            return inv_freq, self.attention_factor
        return inv_freq, 0.1 * math.log(self.factor) + 1.0

    def exponents(self, steps: np.ndarray, count: float) -> np.ndarray:
        """Returns the exponents of s, from 0 to 1, of pairs ``steps`` after l, of ``count``."""
        return steps / count


@dataclasses.dataclass(frozen=True)
class MrRoPEProFrequencies(MrRoPEUniFrequencies):
    """Divides the frequencies of the middle pairs by growing factors, one after the other."""

    def exponents(self, steps: np.ndarray, count: float) -> np.ndarray:
        return steps * (steps + 1) / (count * (count + 1))


class MrRoPEUni(RoPE):
    """MrRoPE-Uni (2601.22181) slows middle pairs down by the same factor from pair to pair.

    The middle pairs have the frequencies of a larger base.

    Args:
      factor: s, target length / train length.
      beta_fast, beta_slow: the numbers of turns within L that bound the middle pairs.
      attention_factor: factor of cosine and sine; default ``0.1 ln(factor) + 1``.
    """

    rule = MrRoPEUniFrequencies

    def __init__(
        self,
        *,
        head_dim: int,
        train_length: int,
        factor: float,
        beta_fast: float = 32.0,
        beta_slow: float = 1.0,
        attention_factor: float | None = None,
        **rope: Unpack[Rotating],
    ):
        rule = self.rule(train_length, factor, beta_fast, beta_slow, attention_factor)
        super().__init__(head_dim=head_dim, frequencies=rule, **rope)


class MrRoPEPro(MrRoPEUni):
    """MrRoPE-Pro (2601.22181) slows middle pairs down by factors that grow from pair to pair.

    The arguments are as in ``MrRoPEUni``. The class of the authors' code that computes these
    frequencies is ``LlamaYaRNRadix``.
    """

    rule = MrRoPEProFrequencies
