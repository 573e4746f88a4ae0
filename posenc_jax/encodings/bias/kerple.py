r"""KERPLE, kernelised relative positional embedding, has a logarithmic and a power kind.

https://arxiv.org/abs/2205.09921

$$ z_{mn} = \frac{q_m \cdot k_n}{\sqrt d} - f_h(|m - n|) $$

Each kind has its own function f, with two trained numbers p and a for each head, shared by the
layers. Both override ``score``.
"""

import abc

import jax
import jax.numpy as jnp
from flax import nnx

from posenc_jax.encoding import Encoding
from posenc_jax.encodings.lib.by_distance import add_bias, bias_by_distance


class Kerple(Encoding):
    """Penalises distance by a function with parameters p and a; the base class of both kinds.

    The released code keeps ``p`` and ``a`` in range (0.01 or above, and the power's ``p`` not
    above 2) by overwriting the parameters in every forward pass. Here they are smooth functions of
    the trained parameters, with the same range and a gradient everywhere.
    The paper's composite kind, with three numbers for each head, is not offered.

    Args:
      rngs: source of the initial values, p ~ U(0, 2) and a ~ U(0, 1) as released, but at least
        0.02, and the power's p at most 1.98.
    """

    def __init__(self, *, num_heads: int, rngs: nnx.Rngs):
        p = 2 * jax.random.uniform(rngs.params(), (num_heads,))
        a = jax.random.uniform(rngs.params(), (num_heads,))
        self.raw_p = nnx.Param(self.inverse_p(jnp.maximum(p, 0.02)))
        self.raw_a = nnx.Param(inverse_positive(jnp.maximum(a, 0.02)))

    def score(self, logits_BHTS, pairs):
        p_H1 = pairs.of_heads(self.p_of(self.raw_p[...]))[:, None]
        a_H1 = pairs.of_heads(positive(self.raw_a[...]))[:, None]
        bias = bias_by_distance(lambda x_N: -self.penalty(abs(x_N)[None], p_H1, a_H1), pairs)
        return add_bias(logits_BHTS, bias)

    @abc.abstractmethod
    def penalty(self, distance_1N, p_H1, a_H1) -> jax.Array:
        """Returns the penalty of distances that are not negative, ``[H, N]``."""

    def p_of(self, raw) -> jax.Array:
        """Returns p as a function of its trained parameter."""
        return positive(raw)

    def inverse_p(self, p) -> jax.Array:
        """Returns the trained parameter for which ``p_of`` gives ``p``."""
        return inverse_positive(p)


class KerpleLog(Kerple):
    r"""Penalises the logarithm of the distance; the arguments are as in ``Kerple``.

    $$ f_h(x) = p_h \ln(1 + a_h\, x) $$

    Both p and a are ``0.01 + softplus`` of their parameters.
    """

    def penalty(self, distance_1N, p_H1, a_H1):
        return p_H1 * jnp.log1p(a_H1 * distance_1N)


class KerplePower(Kerple):
    r"""Penalises a power of the distance; the arguments are as in ``Kerple``.

    $$ f_h(x) = a_h\, x^{p_h} $$

    Here a is ``0.01 + softplus`` and p is ``0.01 + 1.99 * sigmoid`` of its parameter: with p above
    2 the kernel would no longer be conditionally positive definite.
    """

    def penalty(self, distance_1N, p_H1, a_H1):
        # The gradient of a power may be infinite at 0; times the gradient of |0|, 0, it is NaN.
        is_0 = distance_1N == 0
        return jnp.where(is_0, 0, a_H1 * jnp.where(is_0, 1, distance_1N) ** p_H1)

    def p_of(self, raw):
        return exponent(raw)

    def inverse_p(self, p):
        return inverse_exponent(jnp.minimum(p, 1.98))


def positive(raw) -> jax.Array:
    """Returns numbers above 0.01, float32, that grow with ``raw``."""
    return 0.01 + jax.nn.softplus(raw.astype(jnp.float32))


def inverse_positive(value) -> jax.Array:
    """Returns the parameters for which ``positive`` gives the published ``value``."""
    value = value - 0.01
    return value + jnp.log(-jnp.expm1(-value))


def exponent(raw) -> jax.Array:
    """Returns numbers between 0.01 and 2, float32, that grow with ``raw``."""
    return 0.01 + 1.99 * jax.nn.sigmoid(raw.astype(jnp.float32))


def inverse_exponent(value) -> jax.Array:
    """Returns the parameters for which ``exponent`` gives the published ``value``."""
    share = (value - 0.01) / 1.99
    return jnp.log(share) - jnp.log1p(-share)
