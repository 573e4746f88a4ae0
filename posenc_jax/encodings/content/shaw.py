r"""Shaw et al. add relative position representations to the keys and to the values.

https://arxiv.org/abs/1803.02155

$$
z_{mn} = \frac{q_m \cdot (k_n + a^K_{i})}{\sqrt d}, \quad
o_m = \sum_n w_{mn}\, (v_n + a^V_{i}), \qquad i = \mathrm{clip}(n - m, -D, D)
$$

w are the attention weights. The two tables a of vectors for each distance are trained, and D is the
largest distance that has its own. Overrides ``score`` and ``mix``.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from posenc_jax.checks import count_of
from posenc_jax.encoding import Encoding
from posenc_jax.encodings.lib.initial_values import checked_shape
from posenc_jax.lookup import pick, row_products


class Shaw(Encoding):
    """Adds a trained vector for each clipped distance to the keys and to the values.

    The heads share the tables; every layer has its own. Distances that are not whole numbers are
    rounded.

    Tables of other code may be another function of the distance: BERT's ``relative_key`` is indexed
    by m - n, and VITS has zeros beyond its largest distance.

    Args:
      max_distance: distances beyond it, in either direction, share a vector; 16 in the paper.
      values: whether values have a table too. The paper has one and finds that it adds little.
      rngs: source of the initial values, Xavier uniform.
    """

    per_layer = True

    def __init__(
        self, *, head_dim: int, rngs: nnx.Rngs, max_distance: int = 16, values: bool = True
    ):
        self.max_distance = count_of("max_distance", max_distance)

        def table():
            shape = checked_shape(2 * max_distance + 1, head_dim)
            return nnx.Param(jax.nn.initializers.xavier_uniform()(rngs.params(), shape))

        self.keys = table()
        self.values = table() if values else None

    def score(self, logits_BHTS, pairs):
        products_BHTR = row_products(pairs.q, pairs.scale * self.keys[...])
        return logits_BHTS + pick(products_BHTR, self._row(pairs))

    def mix(self, out_BTHC, weights_BHTS, pairs):
        if self.values is None:
            return out_BTHC
        if out_BTHC.shape[-1] != self.values.shape[-1]:
            raise ValueError(
                f"values have {out_BTHC.shape[-1]} channels, but Shaw's table of values has as "
                f"many as queries and keys, head_dim={self.values.shape[-1]}: pass values=False"
            )
        table_RC, row_B1TS = self.values[...].astype(jnp.float32), self._row(pairs)
        zeros_BHT1 = jnp.zeros_like(weights_BHTS[..., :1])
        zeros_BHTR = jnp.broadcast_to(zeros_BHT1, (*weights_BHTS.shape[:-1], len(table_RC)))
        # Picking transposed: the sum of the weights that share a row.
        _, transposed = jax.vjp(lambda rows: pick(rows, row_B1TS), zeros_BHTR)
        (sums_BHTR,) = transposed(weights_BHTS)
        return out_BTHC + jnp.einsum("bhtr,rc->bthc", sums_BHTR, table_RC)

    def _row(self, pairs):
        """Returns the row of the tables for each pair of tokens, int32 ``[B, 1, T, S]``."""
        ahead = jnp.round(-pairs.distance()).astype(jnp.int32)
        return jnp.clip(ahead, -self.max_distance, self.max_distance) + self.max_distance
