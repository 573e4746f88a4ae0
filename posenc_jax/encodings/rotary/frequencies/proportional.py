"""p-RoPE turns only the fastest pairs.

https://arxiv.org/abs/2410.06205
"""

import dataclasses

import numpy as np

from posenc_jax.encodings.rotary.frequencies.base import (
    Base,
    Frequencies,
    Length,
    Turns,
    check_factor,
    geometric,
)


@dataclasses.dataclass(frozen=True)
class Proportional(Frequencies):
    """p-RoPE (2410.06205; ``proportional`` in Hugging Face) turns only the fastest pairs.

    They are a ``fraction`` of all pairs and turn ``factor`` times slower than in RoPE. Unlike in
    partial rotary, the exponents count all channels.
    """

    fraction: float = 0.75
    factor: float = 1.0

    def __post_init__(self):
        check_factor(self.factor)
        if not 0 < self.fraction <= 1:
            raise ValueError(f"fraction={self.fraction!r} must be in (0, 1]")

    def __call__(self, channels: int, base: Base, length: Length) -> Turns:
        pairs = channels // 2
        turning = np.arange(pairs) < int(self.fraction * channels // 2)
        if not turning.any():
            raise ValueError(
                f"fraction={self.fraction!r} turns none of {pairs} pairs; give a little "
                f"more than 1 / {pairs}, or take 'nope', in which none turns"
            )
        return geometric(channels, base) * turning.astype(np.float64) / self.factor, 1.0
