r"""HoPE, high-frequency rotary encoding, does not rotate slow pairs, which carry content only.

https://arxiv.org/abs/2410.21216

$$
\theta'_i = \begin{cases} \theta_i & L\, \theta_i / 2 \pi > c \\ 0 & \text{otherwise} \end{cases}
$$

L is the training length, and c the number of cycles of the cut.
"""

import dataclasses
from typing import Unpack

import numpy as np

from posenc_jax.checks import count_of
from posenc_jax.encodings.rotary.frequencies.base import (
    Frequencies,
    Length,
    Rates,
    geometric,
    turns_in,
)
from posenc_jax.encodings.rotary.rope import RoPE, Rotating


@dataclasses.dataclass(frozen=True)
class HoPEFrequencies(Frequencies):
    """Sets to 0 the frequencies of the pairs that turn rarely within ``train_length``."""

    train_length: int
    cut_cycles: float = 1.0

    def __post_init__(self):
        count_of("train_length", self.train_length)

    def __call__(self, channels: int, base: float, length: Length) -> Rates:
        inv_freq = geometric(channels, base)
        is_fast = turns_in(self.train_length, inv_freq) > self.cut_cycles
        is_fast[0] = True
        return np.where(is_fast, inv_freq, 0.0), 1.0


class HoPE(RoPE):
    """HoPE (2410.21216) rotates the fast pairs as RoPE does, and the slow ones not at all.

    A pair is fast if it makes more than ``cut_cycles`` turns within the training length. No
    official code is known; the cut follows two independent readings of the paper. The fastest pair
    always rotates, which is our choice for very short lengths.

    Args:
      cut_cycles: c, the number of turns within L that a fast pair exceeds.
    """

    def __init__(
        self, *, head_dim: int, train_length: int, cut_cycles: float = 1.0, **rope: Unpack[Rotating]
    ):
        rule = HoPEFrequencies(train_length, cut_cycles)
        super().__init__(head_dim=head_dim, frequencies=rule, **rope)
