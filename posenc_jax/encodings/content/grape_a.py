r"""GRAPE-A is ALiBi whose slopes are set by keys and queries.

https://arxiv.org/abs/2512.07805

$$
z_{mn} = \frac{q_m \cdot k_n}{\sqrt d} - |m - n|\, a_h\, \varsigma(\omega_h)
\Big(\varsigma\Big(\frac{k_n \cdot u_h}{\sqrt d}\Big) +
\varsigma\Big(\frac{q_m \cdot w_h}{\sqrt d}\Big)\Big), \qquad \varsigma(x) = \ln(1 + e^x)
$$

The slopes a are ALiBi's; omega and the unit vectors u and w are trained. Overrides ``score``.
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx

from posenc_jax.checks import check_choice
from posenc_jax.encoding import Encoding
from posenc_jax.encodings.bias.alibi import alibi_slopes
from posenc_jax.lookup import check_width, lying_as_heads
from posenc_jax.pairs import Pairs


class GrapeA(Encoding):
    """Penalises distance linearly, at a rate that depends on the key, the query or both.

    The published models normalise queries and keys (``Transformer(..., qk_norm="head")``). Each
    layer has its own parameters.

    Args:
      head_dim: number of channels in one head, d.
      gate: which terms of the rate to use: "both", "key" or "query".
      rngs: source of the initial u and w, N(0, 1) before they are scaled to length 1; the released
        initialisation could not be verified. omega starts where its softplus is 1.
    """

    per_layer = True

    def __init__(self, *, num_heads: int, head_dim: int, rngs: nnx.Rngs, gate: str = "both"):
        check_choice(("both", "key", "query"), gate=gate)
        self.num_heads = num_heads

        def directions():
            return nnx.Param(jax.random.normal(rngs.params(), (num_heads, head_dim)))

        self.omega = nnx.Param(jnp.full((num_heads,), math.log(math.e - 1)))
        self.of_key = None if gate == "query" else directions()
        self.of_query = None if gate == "key" else directions()

    def score(self, logits_BHTS, pairs: Pairs):
        slopes_H = jnp.asarray(alibi_slopes(self.num_heads), jnp.float32)
        rate_1H11 = pairs.per_head(slopes_H * jax.nn.softplus(self.omega[...].astype(jnp.float32)))
        gates = jnp.zeros((1, 1, 1, 1))
        if self.of_key is not None:
            gates = gates + _of_keys(pairs, self.of_key[...])[:, :, None, :]
        if self.of_query is not None:
            gates = gates + _of_queries(pairs, self.of_query[...])[..., None]
        return logits_BHTS - rate_1H11 * abs(pairs.distance()) * gates


def _of_keys(pairs, vectors_HC):
    """Returns the term of each key, float32 ``[B, H, S]``."""
    (B, S, K, _), H = pairs.k.shape, pairs.q.shape[2]
    unit_HC = _unit(pairs.of_heads(vectors_HC), pairs.q)
    unit_KGC = lying_as_heads(unit_HC.reshape(K, H // K, -1), pairs.k)
    products = jnp.einsum("bskc,kgc->bkgs", pairs.k.astype(jnp.float32), unit_KGC)
    return jax.nn.softplus(products.reshape(B, H, S))


def _of_queries(pairs, vectors_HC):
    """Returns the term of each query, float32 ``[B, H, T]``."""
    unit_HC = lying_as_heads(_unit(pairs.of_heads(vectors_HC), pairs.q), pairs.q)
    products = jnp.einsum("bthc,hc->bht", pairs.q.astype(jnp.float32), unit_HC)
    return jax.nn.softplus(products)


def _unit(vectors_HC, q_BTHC):
    """Returns the vectors scaled to length ``1 / sqrt(d)``."""
    check_width(q_BTHC, head_dim=vectors_HC.shape[-1])
    squares = (vectors_HC.astype(jnp.float32) ** 2).sum(-1, keepdims=True)
    length = jnp.maximum(jnp.sqrt(jnp.maximum(squares, 1e-30)), 1e-6)
    return vectors_HC / (length * math.sqrt(vectors_HC.shape[-1]))
