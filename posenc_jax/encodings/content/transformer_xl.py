r"""Transformer-XL adds to each logit a product of the query and the relative position.

https://arxiv.org/abs/1901.02860

$$ z_{mn} = \frac{(q_m + u) \cdot k_n + (q_m + v) \cdot W_R\, R(m - n)}{\sqrt d} $$

R is the sinusoidal vector of the distance; u, v and W_R are trained. By the addition theorem
R(m - n) is R(m) rotated by n, so the second term is an ordinary product of wider queries and keys
and no ``[T, S]`` table is needed: ``q' = [q + u ; rotated W_R^T (q + v)]``, ``k' = [k ; cos n,
sin n]``. Overrides ``prepare`` and ``rotate``.
"""

import jax.numpy as jnp
from flax import nnx

from posenc_jax.checks import check_multiple
from posenc_jax.encoding import Encoding
from posenc_jax.encodings.lib.angles import tables_of_text
from posenc_jax.encodings.lib.initial_values import normal
from posenc_jax.encodings.rotary.frequencies.base import checked_base, geometric
from posenc_jax.lookup import check_width, lying_as_heads
from posenc_jax.positions import one_axis
from posenc_jax.tokens import Tokens


class TransformerXL(Encoding):
    """Adds a product of the query and the relative position, with trained biases u and v.

    The released code can also share u and v between layers (``untie_r=False``); here each layer
    has its own.

    Args:
      model_dim: width of the sinusoids, even.
      base: base of the sinusoids' frequencies.
      rngs: source of the initial values, N(0, 0.02).
    """

    per_layer = True

    def __init__(
        self,
        *,
        num_heads: int,
        head_dim: int,
        model_dim: int,
        rngs: nnx.Rngs,
        base: float = 10000.0,
    ):
        check_multiple(2, model_dim=model_dim)  # sines and cosines come in pairs
        self.model_dim = model_dim
        self.base = checked_base(base)

        self.u = normal(rngs, num_heads, head_dim)
        self.v = normal(rngs, num_heads, head_dim)
        self.w_r = normal(rngs, num_heads, head_dim, model_dim)

    def prepare(self, tokens: Tokens, length):
        """Makes float32 cos and sin, each ``[B, T, 1, model_dim / 2]``."""
        inv_freq = geometric(self.model_dim, self.base)
        return tables_of_text(one_axis(tokens.positions), inv_freq)

    def rotate(self, x_BTHC, tokens, side):
        cos, sin = tokens.made
        dtype = x_BTHC.dtype
        if not side.is_query:
            table = jnp.concatenate([cos, sin], axis=-1).astype(dtype)
            table = table + jnp.zeros_like(x_BTHC[..., :1])  # for every head, sharded as they are
            return jnp.concatenate([x_BTHC, table], axis=-1)
        u_HC, v_HC, w_HCD = (
            lying_as_heads(side.of_heads(p[...]).astype(jnp.float32), x_BTHC)
            for p in (self.u, self.v, self.w_r)
        )
        check_width(x_BTHC, head_dim=u_HC.shape[-1])
        with_u = x_BTHC + u_HC.astype(dtype)[None, None]
        # The product is in float32, because XLA:CPU cannot run it in bfloat16.
        with_v = x_BTHC.astype(jnp.float32) + v_HC[None, None]
        wanted = jnp.einsum("bthc,hcd->bthd", with_v, w_HCD)
        # wanted . [sin(m-n), cos(m-n)], regrouped by cos n and sin n.
        of_sin, of_cos = jnp.split(wanted, 2, axis=-1)
        rotated = [of_sin * sin + of_cos * cos, of_cos * sin - of_sin * cos]
        return jnp.concatenate([with_u, *(part.astype(dtype) for part in rotated)], axis=-1)
