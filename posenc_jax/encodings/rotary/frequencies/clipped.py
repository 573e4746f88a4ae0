r"""Clipped RoPE slows the slowest pairs down to a halt.

https://arxiv.org/abs/2602.05258

$$
\theta'_i = w_i\, \theta_i, \qquad
w_{d/2 - c + j} = \frac12 \Big(1 + \cos \frac{\pi j}{c - 1}\Big), \quad j = 0, \dots, c - 1
$$

c is the number of clipped pairs; all others have w = 1.
"""

import dataclasses
import math
from typing import Unpack

import numpy as np

from posenc_jax.checks import check_choice, check_sizes, count_of
from posenc_jax.encodings.rotary.frequencies.base import Frequencies, Length, Rates, geometric
from posenc_jax.encodings.rotary.rope import RoPE, Rotating


@dataclasses.dataclass(frozen=True)
class ClippedFrequencies(Frequencies):
    """Multiplies the frequencies of the slowest pairs by a share that falls to 0."""

    clipped_pairs: int | None = None
    taper: str = "cosine"

    def __post_init__(self):
        check_sizes(clipped_pairs=self.clipped_pairs)
        check_choice(("cosine", "hard"), taper=self.taper)

    def __call__(self, channels: int, base: float, length: Length) -> Rates:
        pairs = channels // 2
        count = round(pairs * 20 / 64) if self.clipped_pairs is None else self.clipped_pairs
        count_of("clipped_pairs", count, 0, pairs)
        left = np.ones(pairs)
        cosine = 0.5 * (1 + np.cos(np.linspace(0, math.pi, count)))
        left[pairs - count :] = cosine if self.taper == "cosine" else 0.0
        return geometric(channels, base) * left, 1.0


class Clipped(RoPE):
    """Clipped RoPE (2602.05258, there "CoPE") slows the slowest pairs down to a halt.

    Contextual position encoding (2405.18719), which is also called CoPE, is another scheme.

    Args:
      clipped_pairs: number of pairs, the slowest ones, that are clipped. Default: 20 of every 64,
        as in the released code, which has 64.
      taper: "cosine" multiplies their frequencies by a half cosine that falls from 1 at the first
        of them to 0 at the last (so a single clipped pair is unchanged); "hard" multiplies by 0.
    """

    def __init__(
        self,
        *,
        head_dim: int,
        clipped_pairs: int | None = None,
        taper: str = "cosine",
        **rope: Unpack[Rotating],
    ):
        rule = ClippedFrequencies(clipped_pairs, taper)
        super().__init__(head_dim=head_dim, frequencies=rule, **rope)
