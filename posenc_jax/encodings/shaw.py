"""Relative position representations of Shaw et al.

https://arxiv.org/abs/1803.02155

``q_m . (k_n + aK[i]) / sqrt(d)`` and ``sum_n p_mn (v_n + aV[i])`` with two trained tables and
``i = clip(n - m, -max_distance, max_distance) + max_distance``. Overrides ``score`` and ``mix``.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from posenc_jax.encoding import Encoding
from posenc_jax.gather import near_or_far, pick, row_products, tally


class Shaw(Encoding):
    """A trained vector for each clipped distance, added to the keys and to the values.

    The tables are shared by the heads; every layer has its own. Distances that are not whole
    numbers are rounded.

    Args:
      head_dim: channels of one head.
      max_distance: distances beyond it, in either direction, share a vector; 16 in the paper.
      values: whether values have a table too. The paper has one and finds that it adds little.
      rngs: initial values, Xavier uniform.
    """

    per_layer = True

    def __init__(
        self, *, head_dim: int, rngs: nnx.Rngs, max_distance: int = 16, values: bool = True
    ):
        if max_distance < 1:
            raise ValueError(f"max_distance={max_distance} must be a positive number of tokens")
        self.max_distance = max_distance

        def table():
            shape = (2 * max_distance + 1, head_dim)
            return nnx.Param(jax.nn.initializers.xavier_uniform()(rngs.params(), shape))

        self.keys = table()
        self.values = table() if values else None

    def score(self, logits_BHTS, tile):
        products_BHTR = tile.scale * row_products(tile.q, self.keys[...])

        def near(logits_BHTS):
            return logits_BHTS + pick(products_BHTR, self._row(tile))

        def far(logits_BHTS):
            return logits_BHTS + products_BHTR[..., :1]

        return near_or_far(tile, self.max_distance, near, far, logits_BHTS)

    def mix(self, out_BTHC, weights_BHTS, tile):
        if self.values is None:
            return out_BTHC
        values_RC = self.values[...].astype(jnp.float32)

        def near(weights_BHTS):
            return tally(weights_BHTS, self._row(tile), len(values_RC))

        def far(weights_BHTS):
            sums_BHT1 = weights_BHTS.sum(-1, keepdims=True)
            return jnp.pad(sums_BHT1, ((0, 0), (0, 0), (0, 0), (0, len(values_RC) - 1)))

        weights_BHTR = near_or_far(tile, self.max_distance, near, far, weights_BHTS)
        return out_BTHC + jnp.einsum("bhtr,rc->bthc", weights_BHTR, values_RC)

    def _row(self, tile):
        ahead = jnp.round(-tile.distance()).astype(jnp.int32)
        return jnp.clip(ahead, -self.max_distance, self.max_distance) + self.max_distance
