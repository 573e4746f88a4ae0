"""Sandwich, sinusoids multiplied with each other and with nothing else.

https://arxiv.org/abs/2212.10356

``logit + sum_i cos((m - n) / base^(2 i / channels)) / (8 h / H)`` for heads h = 1 .. H. By the
addition theorem the sum is the product of two sinusoidal vectors, that of m and that of n.
Overrides ``prepare`` (the vectors) and ``score``.
"""

import jax.numpy as jnp
import numpy as np

from posenc_jax.attention.strip import products_by_distance
from posenc_jax.encoding import Encoding
from posenc_jax.encodings.sinusoidal import sinusoids


class Sandwich(Encoding):
    """A bias that decays roughly with the logarithm of the distance, and has no parameters.

    The product could also be extra channels of queries and keys. It is not: bfloat16 models would
    round it, every head would compute it again, and ``rotate`` does not know which heads it has.

    Args:
      num_heads: query heads of one layer.
      channels: width of the sinusoidal vectors, even; 128 in the paper's appendix E, whatever
        the width of the model.
      base: of the sinusoids.
    """

    def __init__(self, *, num_heads: int, channels: int = 128, base: float = 10000.0):
        if channels % 2 or channels < 2:
            raise ValueError(
                f"channels={channels} must be a positive even number: sines and cosines come in "
                "pairs"
            )
        self.num_heads = num_heads
        self.channels = channels
        self.base = base

    def prepare(self, positions, length):
        """float32 ``[B, T, channels]``."""
        if positions.ndim != 2:
            raise ValueError(
                "a distance needs one position axis, positions of shape [B, T], not "
                f"{positions.shape}; pass one axis of them"
            )
        return sinusoids(positions, self.channels, self.base)

    def score(self, logits_BHTS, tile):
        products_BTS = products_by_distance(tile.q_prepared, tile.k_prepared, tile)
        ratios = 8 * np.arange(1, self.num_heads + 1) / self.num_heads
        share_H = tile.of_heads(jnp.asarray(1 / ratios, jnp.float32))
        return logits_BHTS + share_H[None, :, None, None] * products_BTS[:, None]
