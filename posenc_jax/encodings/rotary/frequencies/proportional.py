r"""p-RoPE rotates only the fastest pairs.

https://arxiv.org/abs/2410.06205

$$
\theta'_i = \begin{cases}
\theta_i / s & i < \lfloor f d / 2 \rfloor \\ 0 & \text{otherwise} \end{cases}
$$

f is the fraction of the pairs that rotate, and s the factor by which they are slower.
"""

import dataclasses
from typing import Unpack

import numpy as np

from posenc_jax.checks import check_positive, check_range
from posenc_jax.encodings.rotary.frequencies.base import Frequencies, Length, Rates, geometric
from posenc_jax.encodings.rotary.rope import RoPE, Rotating


@dataclasses.dataclass(frozen=True)
class ProportionalFrequencies(Frequencies):
    """Sets to 0 the frequencies of all but the fastest ``fraction`` of the pairs."""

    fraction: float = 0.75
    factor: float = 1.0

    def __post_init__(self):
        check_range(1, factor=self.factor)
        check_positive(fraction=self.fraction)
        check_range(0, 1, fraction=self.fraction)

    def __call__(self, channels: int, base: float, length: Length) -> Rates:
        pairs = channels // 2
        check_range(1 / pairs, fraction=self.fraction)  # Otherwise no pair would rotate.
        is_rotated = np.arange(pairs) < int(self.fraction * channels // 2)
        return geometric(channels, base) * is_rotated.astype(np.float64) / self.factor, 1.0


class Proportional(RoPE):
    """p-RoPE (2410.06205; ``proportional`` in Hugging Face) rotates only the fastest pairs.

    Unlike in partial rotary, the exponents count all channels.

    Args:
      fraction: the share of the pairs that rotate.
      factor: how many times slower than in RoPE they rotate.
    """

    def __init__(
        self,
        *,
        head_dim: int,
        fraction: float = 0.75,
        factor: float = 1.0,
        **rope: Unpack[Rotating],
    ):
        rule = ProportionalFrequencies(fraction, factor)
        super().__init__(head_dim=head_dim, frequencies=rule, **rope)
