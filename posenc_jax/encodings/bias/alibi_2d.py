r"""2D-ALiBi gives attention linear biases on a grid.

https://arxiv.org/abs/2311.00566 (CROMA)

$$ z_{mn} = \frac{q_m \cdot k_n}{\sqrt d} - s_h\, \lVert p_m - p_n \rVert_2 $$

The positions p lie on a grid, and the slopes s_h are ALiBi's. Overrides ``score``.
"""

import jax
import jax.numpy as jnp

from posenc_jax.encodings.bias.alibi import ALiBi
from posenc_jax.pairs import Pairs
from posenc_jax.positions import on_axes


class ALiBi2D(ALiBi):
    """Penalises the straight-line distance between positions, on any number of axes.

    Text alone, ``[B, T]``, has one axis and the penalty of ALiBi. Text beside an image has the same
    position on two axes, which makes its tokens sqrt(2) times as far apart.
    """

    def distance(self, pairs: Pairs) -> jax.Array:
        q_positions, k_positions = pairs.q_tokens.positions, pairs.k_tokens.positions
        if q_positions.ndim == 2 == k_positions.ndim:
            return super().distance(pairs)
        num_axes = max(p.shape[2] for p in (q_positions, k_positions) if p.ndim == 3)
        q_positions, k_positions = on_axes(q_positions, num_axes), on_axes(k_positions, num_axes)
        # A loop over axes, because an innermost array axis of two or three elements is slow.
        squares = jnp.zeros(())
        for axis in range(num_axes):
            apart = q_positions[:, None, :, None, axis] - k_positions[:, None, None, :, axis]
            squares = squares + apart.astype(jnp.float32) ** 2
        # The gradient of a root is infinite at 0, and times 0 it would be NaN.
        is_apart = squares > 0
        return jnp.where(is_apart, jnp.sqrt(jnp.where(is_apart, squares, 1.0)), 0.0)
