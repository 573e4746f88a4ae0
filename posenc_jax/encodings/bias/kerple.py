"""KERPLE, kernelised relative positional embedding, logarithmic and power kinds.

https://arxiv.org/abs/2205.09921

``logit - p_h * ln(1 + a_h * |m - n|)`` or ``logit - a_h * |m - n| ** p_h``, with two trained
numbers a head, shared by the layers. Both override ``score``.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from posenc_jax.attention.strip import add_bias, bias_by_distance
from posenc_jax.encoding import Encoding


class Kerple(Encoding):
    """What both kinds share: a penalty made of the distance and of two numbers, p and a.

    The released code keeps ``p`` and ``a`` in range (0.01 or above, and the power's ``p`` not
    above 2) by overwriting the parameters in every forward pass. Here they are smooth functions of
    what is trained: the same range, no overwriting, and a gradient everywhere.

    Args:
      num_heads: query heads of one layer.
      rngs: initial values, p ~ U(0, 2) and a ~ U(0, 1) as released, raised to 0.02 at least.
    """

    def __init__(self, *, num_heads: int, rngs: nnx.Rngs):
        p = 2 * jax.random.uniform(rngs.params(), (num_heads,))
        a = jax.random.uniform(rngs.params(), (num_heads,))
        self.raw_p = nnx.Param(self.inverse_p(jnp.maximum(p, 0.02)))
        self.raw_a = nnx.Param(inverse_positive(jnp.maximum(a, 0.02)))

    def score(self, logits_BHTS, tile):
        p_H1 = tile.of_heads(self.p_of(self.raw_p[...]))[:, None]
        a_H1 = tile.of_heads(positive(self.raw_a[...]))[:, None]
        penalty = bias_by_distance(self.penalty, (p_H1, a_H1), tile)
        return add_bias(logits_BHTS, -penalty)

    def p_of(self, raw):
        return positive(raw)

    def inverse_p(self, p):
        return inverse_positive(p)

    @staticmethod
    def penalty(parameters, distance_N):
        raise NotImplementedError


class KerpleLog(Kerple):
    """A penalty that grows with the logarithm of the distance; arguments as in ``Kerple``.

    p and a are ``0.01 + softplus`` of what is trained.
    """

    @staticmethod
    def penalty(parameters, distance_N):
        p_H1, a_H1 = parameters
        return p_H1 * jnp.log1p(a_H1 * abs(distance_N)[None])


class KerplePower(Kerple):
    """A penalty that grows with a power of the distance; arguments as in ``Kerple``.

    a is ``0.01 + softplus`` of what is trained and p is ``0.01 + 1.99 * sigmoid`` of it: above 2
    the kernel would no longer be conditionally positive definite.
    """

    @staticmethod
    def penalty(parameters, distance_N):
        p_H1, a_H1 = parameters
        return a_H1 * abs(distance_N)[None] ** p_H1

    def p_of(self, raw):
        return exponent(raw)

    def inverse_p(self, p):
        return inverse_exponent(jnp.minimum(p, 1.98))


def positive(raw):
    """float32, above 0.01."""
    return 0.01 + jax.nn.softplus(raw.astype(jnp.float32))


def inverse_positive(value):
    """What ``positive`` turns into ``value``; use it to load published parameters."""
    value = value - 0.01
    return value + jnp.log(-jnp.expm1(-value))


def exponent(raw):
    """float32, between 0.01 and 2."""
    return 0.01 + 1.99 * jax.nn.sigmoid(raw.astype(jnp.float32))


def inverse_exponent(value):
    """What ``exponent`` turns into ``value``; use it to load published parameters."""
    share = (value - 0.01) / 1.99
    return jnp.log(share) - jnp.log1p(-share)
