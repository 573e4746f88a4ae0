r"""p-RoPE rotates only the fastest pairs.

https://arxiv.org/abs/2410.06205

$$
\theta'_i = \begin{cases}
\theta_i / s & i < \lfloor f d / 2 \rfloor \\ 0 & \text{otherwise} \end{cases}
$$

f is the fraction of the pairs that rotate, and s the factor by which they are slower.
"""

import dataclasses

import numpy as np

from posenc_jax.encodings.rotary.frequencies.base import (
    Base,
    Frequencies,
    Length,
    Rates,
    check_factor,
    geometric,
)


@dataclasses.dataclass(frozen=True)
class Proportional(Frequencies):
    """p-RoPE (2410.06205; ``proportional`` in Hugging Face) rotates only the fastest pairs.

    Unlike in partial rotary, the exponents count all channels.

    Attributes:
      fraction: the share of the pairs that rotate.
      factor: how many times slower than in RoPE they rotate.
    """

    fraction: float = 0.75
    factor: float = 1.0

    def __post_init__(self):
        check_factor(self.factor)
        if not 0 < self.fraction <= 1:
            raise ValueError(f"fraction={self.fraction!r} must be in (0, 1]")

    def __call__(self, channels: int, base: Base, length: Length) -> Rates:
        pairs = channels // 2
        turning = np.arange(pairs) < int(self.fraction * channels // 2)
        if not turning.any():
            raise ValueError(
                f"fraction={self.fraction!r} rotates none of {pairs} pairs; give a little "
                f"more than 1 / {pairs}, or take 'nope', in which none rotates"
            )
        return geometric(channels, base) * turning.astype(np.float64) / self.factor, 1.0
