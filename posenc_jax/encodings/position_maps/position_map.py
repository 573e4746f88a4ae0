"""What ReRoPE, Self-Extend and dual chunk attention share: the distance decides how RoPE turns.

They run a trained RoPE model past its training length with distances it has seen, by giving RoPE
another relative position than ``m - n``. That is not one rotation of queries and keys but two or
three, and their products are chosen from entry by entry. Hence ``rotate`` returns all rotations
side by side and ``score`` replaces the logits by the products of the parts. Nobody reads the
product of the whole, so XLA leaves it out.

All are made for causal attention with positions in written order. A key ahead of its query has a
negative distance, which counts as near.
"""

import jax
import jax.numpy as jnp
import numpy as np

from posenc_jax.attention.dense import products
from posenc_jax.encodings.rope import RoPE
from posenc_jax.rotary.angles import cos_sin
from posenc_jax.rotary.positions import one_axis


class PositionMap(RoPE):
    """RoPE with several rotations; ``prepare`` returns their tables, for queries and for keys."""

    def rotate(self, x_BTHC, prepared, *, is_query):
        of_queries, of_keys = prepared
        parts = [
            super(PositionMap, self).rotate(x_BTHC, tables, is_query=is_query)
            for tables in (of_queries if is_query else of_keys)
        ]
        return jnp.concatenate(parts, axis=-1)


def products_of_parts(tile, count: int) -> list[jax.Array]:
    """The scaled logits of each of ``count`` rotations, float32 ``[B, H, T, S]``."""
    sides = (jnp.split(side, count, axis=-1) for side in (tile.q, tile.k))
    return [products(q, k) * tile.scale for q, k in zip(*sides, strict=True)]


class NearFar(PositionMap):
    """``d`` where a distance d is below ``window``, and ``w + (d - w) / compression`` beyond.

    Args:
      window: w, in tokens.
      compression: how many distances beyond the window share the room of one.
      **rope: the keywords of ``RoPE``.
    """

    def __init__(self, *, window: int, compression: float, **rope):
        super().__init__(**rope)
        check_tokens("window", window)
        self.window = window
        self.compression = compression
        self.offset = window - window / compression

    def prepare(self, positions, length):
        """Near and far float32 cos and sin, each ``[B, T, 1, rotary_dim / 2]``, for each side."""
        near = super().prepare(one_axis(positions), length)
        inv_freq, _ = self.frequencies(self.rotary_dim, self.base, length)
        cos, sin = (table[:, :, None, :] for table in self.far_tables(positions, inv_freq))
        # The offset is a turn of its own: added to large float32 positions it would be rounded.
        turn = self.offset * inv_freq
        turn_cos, turn_sin = (
            jnp.asarray(table, jnp.float32)[None, None, None]
            for table in (np.cos(turn), np.sin(turn))
        )
        far_query = cos * turn_cos - sin * turn_sin, sin * turn_cos + cos * turn_sin
        return (near, far_query), (near, (cos, sin))

    def far_tables(self, positions, inv_freq):
        """cos and sin of compressed positions, each ``[B, T, rotary_dim / 2]``."""
        # For the same reason the frequency is divided, and not the position.
        return cos_sin(positions[..., None], inv_freq / self.compression)

    def score(self, logits_BHTS, tile):
        near, far = products_of_parts(tile, 2)
        return jnp.where(tile.distance() < self.window, near, far)


def check_tokens(name: str, value) -> None:
    """Refuses what is no positive number of tokens."""
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"{name}={value!r} must be a whole number of tokens, 1 or more")
