r"""STRING, separable translationally invariant encoding, rotates pairs of learned directions.

https://arxiv.org/abs/2502.02562

$$
q_t \gets R(r_t)\, P\, q_t, \quad k_t \gets R(r_t)\, P\, k_t, \qquad
P = (I - S)(I + S)^{-1}, \quad S^\top = -S
$$

R is RoPE's rotation by the positions r on all axes, at trained rates, and S is trained. Every
encoding by matrices that depends on differences of positions alone is such a rotation, followed by
the transpose of P, which cancels between a query and a key. The class is the paper's Cayley-STRING;
``circulant_string`` is the other form. Overrides ``rotate``.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from posenc_jax.checks import count_of
from posenc_jax.encodings.lib.angles import cos_sin_of_sum
from posenc_jax.encodings.lib.double import Double
from posenc_jax.encodings.rotary.base import Rotary
from posenc_jax.encodings.rotary.frequencies.base import geometric
from posenc_jax.lookup import check_width, lying_as_heads
from posenc_jax.pairs import Side
from posenc_jax.tokens import Tokens


class STRING(Rotary):
    """Transforms queries and keys to a learned basis, and rotates there at learned rates.

    Every layer and every kv head, with its queries, has its own basis and rates. The scheme starts
    as RoPE: S is 0, and each pair rotates by the position along a random direction. The initial
    values are ours, because the appendix of the paper could not be read.

    Args:
      num_axes: number of position axes; positions are ``[B, T, num_axes]``, or ``[B, T]`` for text.
      base: base of the initial rates, as in ``RoPE``.
      layout: order of the channels of a pair, as in ``RoPE``.
      rngs: source of the directions.
    """

    per_layer = True

    def __init__(
        self,
        *,
        head_dim: int,
        num_kv_heads: int,
        rngs: nnx.Rngs,
        num_axes: int = 1,
        base: float = 10000.0,
        layout: str = "half",
    ):
        super().__init__(head_dim=head_dim, base=base, layout=layout)
        shape = num_kv_heads, head_dim // 2, count_of("num_axes", num_axes)
        rate_1P1 = Double.of(geometric(head_dim, self.base)).high[None, :, None]
        self.rates = nnx.Param(rate_1P1 * directions(rngs.params(), shape))
        # The entries of S below its diagonal.
        self.skew = nnx.Param(jnp.zeros((num_kv_heads, head_dim * (head_dim - 1) // 2)))

    def rotate(self, x_BTHC: jax.Array, tokens: Tokens, side: Side) -> jax.Array:
        check_width(x_BTHC, head_dim=self.head_dim)
        basis_HCC = lying_as_heads(side.of_kv_heads(self.basis()), x_BTHC)
        x = x_BTHC.astype(jnp.float32)
        x = jnp.einsum("bthc,hdc->bthd", x, basis_HCC, precision="highest")
        rates_HPA = side.of_kv_heads(self.rates[...].astype(jnp.float32))
        cos, sin = cos_sin_of_sum(tokens.positions, rates_HPA)
        return self.rotate_by(x, cos, sin).astype(x_BTHC.dtype)

    def basis(self) -> jax.Array:
        """Returns P of each kv head, float32 ``[K, C, C]``."""
        row, column = np.tril_indices(self.head_dim, -1)
        below_KCC = jnp.zeros((self.skew.shape[0], self.head_dim, self.head_dim))
        below_KCC = below_KCC.at[:, row, column].set(self.skew[...].astype(jnp.float32))
        skew_KCC, identity = below_KCC - below_KCC.swapaxes(1, 2), jnp.eye(self.head_dim)[None]
        return jnp.linalg.solve(identity + skew_KCC, identity - skew_KCC)


def directions(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Returns random vectors of length 1 along the last axis, whose first component is positive.

    A pair that rotates by the position along such a vector moves forwards along the first axis of
    positions, as in RoPE.
    """
    vectors = jax.random.normal(key, shape)
    vectors *= jnp.sign(vectors[..., :1])
    return vectors / jnp.linalg.norm(vectors, axis=-1, keepdims=True)
