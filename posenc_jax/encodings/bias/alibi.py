"""ALiBi, attention with linear biases.

https://arxiv.org/abs/2108.12409

``logit - slope_h * |m - n|`` with a fixed geometric series of slopes. Overrides ``score``.
"""

import jax.numpy as jnp
import numpy as np

from posenc_jax.encoding import Encoding


def alibi_slopes(num_heads: int) -> np.ndarray:
    """float64 ``[num_heads]`` slopes, steepest first for a power of two.

    Otherwise the slopes of the next smaller power of two, followed by every other slope of the
    next larger one, in the order all released code uses.
    """
    power = 2 ** (num_heads.bit_length() - 1)
    slopes = 2.0 ** (-8.0 * np.arange(1, power + 1) / power)
    between = 2.0 ** (-4.0 * np.arange(1, 2 * power + 1, 2) / power)
    return np.concatenate([slopes, between[: num_heads - power]])


class ALiBi(Encoding):
    """A penalty that grows linearly with distance, at a different rate for each head.

    Args:
      num_heads: query heads of one layer.
      slope_scale: multiplies every slope. Falcon, which adds the penalty before it divides by
        ``sqrt(head_dim)``, has ``head_dim ** -0.5``.
    """

    def __init__(self, *, num_heads: int, slope_scale: float = 1.0):
        if not slope_scale > 0:
            raise ValueError(f"slope_scale={slope_scale!r} must be a positive number")
        self.num_heads = num_heads
        self.slope_scale = slope_scale

    def score(self, logits_BHTS, tile):
        slopes = self.slope_scale * alibi_slopes(self.num_heads)
        slopes_H = tile.of_heads(jnp.asarray(slopes, jnp.float32))
        return logits_BHTS - slopes_H[None, :, None, None] * self.distance(tile)

    def distance(self, tile):
        """float32 ``[B, 1, T, S]``, 0 or more."""
        return abs(tile.distance())
