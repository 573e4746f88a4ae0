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
    """

    def __init__(self, *, num_heads: int):
        self.num_heads = num_heads

    def score(self, logits_BHTS, tile):
        slopes_H = tile.of_heads(jnp.asarray(alibi_slopes(self.num_heads), jnp.float32))
        return logits_BHTS - slopes_H[None, :, None, None] * abs(tile.distance())
