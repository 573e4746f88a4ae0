"""2D-ALiBi, linear biases on a grid.

https://arxiv.org/abs/2311.00566 (CROMA)

``logit - slope_h * |m - n|`` with the Euclidean distance of the positions and ALiBi's slopes.
Overrides ``score``.
"""

import jax.numpy as jnp

from posenc_jax.encodings.alibi import ALiBi


class ALiBi2D(ALiBi):
    """ALiBi by the straight-line distance between positions, of any number of axes.

    Text, ``[B, T]``, has one axis: this is ALiBi. Beside an image, where it has the same position
    on two axes, it is sqrt(2) times as far apart.

    Args:
      num_heads, slope_scale: of ``ALiBi``.
    """

    def distance(self, tile):
        q_positions, k_positions = tile.q_positions, tile.k_positions
        if q_positions.ndim == 2 == k_positions.ndim:
            return super().distance(tile)
        if q_positions.ndim != k_positions.ndim or len(q_positions) != len(k_positions):
            raise ValueError(
                f"queries and keys must have the same position axes, [A, B, T], not positions of "
                f"shape {q_positions.shape} and {k_positions.shape}"
            )
        apart = q_positions[:, :, None, :, None] - k_positions[:, :, None, None, :]
        squares = (apart.astype(jnp.float32) ** 2).sum(axis=0)
        # A root has no gradient at 0, which a zero in its place would multiply to NaN.
        is_apart = squares > 0
        return jnp.where(is_apart, jnp.sqrt(jnp.where(is_apart, squares, 1.0)), 0.0)
