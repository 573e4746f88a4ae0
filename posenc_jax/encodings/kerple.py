"""KERPLE, kernelised relative positional embedding, logarithmic kind.

https://arxiv.org/abs/2205.09921

``logit - p_h * ln(1 + a_h * |m - n|)`` with two trained positive numbers a head, shared by the
layers. Overrides ``score``.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from posenc_jax.encoding import Encoding


class KerpleLog(Encoding):
    """A penalty that grows with the logarithm of the distance.

    The released code keeps ``p`` and ``a`` at 0.01 or above by overwriting the parameters in
    every forward pass. Here they are ``0.01 + softplus`` of what is trained: the same range, no
    overwriting, and a gradient everywhere.

    Args:
      num_heads: query heads of one layer.
      rngs: initial values, p ~ U(0, 2) and a ~ U(0, 1) as released, raised to 0.02 at least.
    """

    def __init__(self, *, num_heads: int, rngs: nnx.Rngs):
        p = 2 * jax.random.uniform(rngs.params(), (num_heads,))
        a = jax.random.uniform(rngs.params(), (num_heads,))
        self.raw_p = nnx.Param(inverse_positive(jnp.maximum(p, 0.02)))
        self.raw_a = nnx.Param(inverse_positive(jnp.maximum(a, 0.02)))

    def score(self, logits_BHTS, tile):
        p = tile.of_heads(positive(self.raw_p[...]))[None, :, None, None]
        a = tile.of_heads(positive(self.raw_a[...]))[None, :, None, None]
        return logits_BHTS - p * jnp.log1p(a * abs(tile.distance()))


def positive(raw):
    """float32, above 0.01."""
    return 0.01 + jax.nn.softplus(raw.astype(jnp.float32))


def inverse_positive(value):
    """What ``positive`` turns into ``value``; use it to load published parameters."""
    value = value - 0.01
    return value + jnp.log(-jnp.expm1(-value))
