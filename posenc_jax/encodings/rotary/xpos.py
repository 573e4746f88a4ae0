r"""xPos is RoPE in which the products of channel pairs also decay with distance.

https://arxiv.org/abs/2212.10554

$$
q_m^{(i)} \gets \zeta_i^{m/B}\, e^{\mathrm{i}\, m \theta_i} q_m^{(i)}, \quad
k_n^{(i)} \gets \zeta_i^{-n/B}\, e^{\mathrm{i}\, n \theta_i} k_n^{(i)}, \qquad
\zeta_i = \frac{2i/d + \gamma}{1 + \gamma}
$$

The product of a query and a key then decays by ``zeta_i ** ((m - n) / B)``, the fastest pair
fastest. Overrides ``prepare`` and ``rotate``.
"""

import jax
import jax.numpy as jnp
import numpy as np

from posenc_jax.encodings.rotary.base import Rotary
from posenc_jax.pairs import Side
from posenc_jax.tokens import Tokens

# With larger exponents, products with small sines are lost, because XLA sets what is below the
# least normal float32, e^-87, to 0.
_LARGEST = 75.0


class XPos(Rotary):
    """Rotates as RoPE does, and makes each pair's product decay with distance at its own rate.

    The paper's results also restrict attention to blocks of half the training length; that is a
    window of the layer and not part of this scheme.

    The factors can overflow. float32 and bfloat16 hold positions up to about ``60 * scale_base``
    tokens from 0, and logits further out are NaN; float16 holds about ``7 * scale_base``. Positions
    may be negative: subtracting half the length from the positions of queries and keys alike
    changes no logit and doubles the range.

    Args:
      rotary_dim: see ``RoPE``; d in the equation.
      layout: see ``RoPE``; interleaved pairs as published.
      scale_base: B, in tokens; 512 in the released code. The paper's Algorithm 1 leaves it out,
        which is ``scale_base=1`` and would overflow float32 after about 60 tokens.
      gamma: 0.4 as published. Larger means less decay.
    """

    def __init__(
        self,
        *,
        head_dim: int,
        base: float = 10000.0,
        rotary_dim: int | None = None,
        layout: str = "interleaved",
        scale_base: float = 512.0,
        gamma: float = 0.4,
    ):
        super().__init__(head_dim=head_dim, base=base, rotary_dim=rotary_dim, layout=layout)
        self.scale_base = scale_base
        self.gamma = gamma

    def prepare(self, tokens: Tokens, length):
        """Makes cosines and sines for queries, then for keys, ``[B, T, 1, rotary_dim / 2]``."""
        cos, sin = self.rope_tables(tokens.positions)
        zeta = np.arange(0, self.rotary_dim, 2) / self.rotary_dim
        zeta = (zeta + self.gamma) / (1 + self.gamma)
        rate = jnp.asarray(np.log(zeta) / self.scale_base, jnp.float32)
        positions_BT11 = tokens.positions.astype(jnp.float32)[:, :, None, None]
        exponent = positions_BT11 * rate[None, None, None]
        exponent = jnp.where(jnp.abs(exponent) <= _LARGEST, exponent, jnp.nan)
        grow, shrink = jnp.exp(exponent), jnp.exp(-exponent)
        return (cos * grow, sin * grow), (cos * shrink, sin * shrink)

    def rotate(self, x_BTHC: jax.Array, tokens: Tokens, side: Side) -> jax.Array:
        of_queries, of_keys = tokens.made
        return self.rotate_by(x_BTHC, *(of_queries if side.is_query else of_keys))
