"""Relative position representations of Shaw et al.

https://arxiv.org/abs/1803.02155

``q_m . (k_n + aK[i]) / sqrt(d)`` and ``sum_n p_mn (v_n + aV[i])`` with two trained tables and
``i = clip(n - m, -max_distance, max_distance) + max_distance``. Overrides ``score`` and ``mix``.
"""

import jax
from flax import nnx

from posenc_jax.attention.clipped import add_table_products, mix_table_rows
from posenc_jax.encoding import Encoding


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
        return add_table_products(logits_BHTS, tile.q, tile.scale * self.keys[...], tile)

    def mix(self, out_BTHC, weights_BHTS, tile):
        if self.values is None:
            return out_BTHC
        return out_BTHC + mix_table_rows(weights_BHTS, self.values[...], tile)
