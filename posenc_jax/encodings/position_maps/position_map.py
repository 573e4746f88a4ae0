"""ReRoPE, Self-Extend and dual chunk attention share one form: a map of the distance.

The three let a trained RoPE model run past its training length by mapping each distance to one that
the model has seen. They need two or three rotations of queries and keys, and each logit is a
product under one of the rotations. So ``rotate`` returns all rotations side by side, and ``score``
replaces the logits by products of the parts. The product of the whole is never used, so XLA leaves
it out.

All are made for causal attention with positions that grow in the order of the tokens. A key ahead
of its query has a negative distance, which counts as near.
"""

import jax
import jax.numpy as jnp

from posenc_jax.attention.dense import products
from posenc_jax.encoding import Side, Tile
from posenc_jax.encodings.rotary.angles import cos_sin, rotated, tables_of_text
from posenc_jax.encodings.rotary.rope import RoPE
from posenc_jax.fields import count_of
from posenc_jax.positions import one_axis
from posenc_jax.tokens import Tokens


class PositionMap(RoPE):
    """Rotates as RoPE by each of several tables, which ``tables`` returns for queries and keys."""

    def rotate(self, x_BTHC, tokens: Tokens, side: Side):
        of_queries, of_keys = tokens.made
        tables = of_queries if side.is_query else of_keys
        return jnp.concatenate([self.rotate_by(x_BTHC, cos, sin) for cos, sin in tables], axis=-1)


def products_of_parts(tile: Tile, count: int) -> list[jax.Array]:
    """Returns the scaled logits of each of ``count`` rotations, float32 ``[B, H, T, S]``."""
    sides = (jnp.split(side, count, axis=-1) for side in (tile.q, tile.k))
    return [products(q, k) * tile.scale for q, k in zip(*sides, strict=True)]


class NearFar(PositionMap):
    """Rotates by a distance d below ``window`` as it is, else by ``w + (d - w) / compression``.

    Args:
      window: w, in tokens.
      compression: factor by which distances beyond the window shrink.
      **rope: the keywords of ``RoPE``.
    """

    def __init__(self, *, window: int, compression: float, **rope):
        super().__init__(**rope)
        self.window = count_of("window", window)
        self.compression = compression
        self.offset = self.window - self.window / compression

    def tables(self, positions, length):
        """Returns cosines and sines, near and far, for queries and for keys.

        Each is float32 ``[B, T, 1, rotary_dim / 2]``.
        """
        near = super().tables(one_axis(positions), length)
        inv_freq, _ = self.frequencies(self.rotary_dim, self.base, length)
        cos, sin = self.far_tables(positions, inv_freq)
        # The offset is a separate rotation: added to large float32 positions it would be rounded.
        offset = cos_sin(jnp.ones((1, 1, 1, 1), jnp.int32), inv_freq * self.offset)
        far_query = rotated(cos, sin, *offset)
        return (near, far_query), (near, (cos, sin))

    def far_tables(self, positions, inv_freq) -> tuple[jax.Array, jax.Array]:
        """Returns cosines and sines of compressed positions, ``[B, T, 1, rotary_dim / 2]``."""
        # For the same reason the frequency is divided, and not the position.
        return tables_of_text(positions, inv_freq / self.compression)

    def score(self, logits_BHTS, tile: Tile):
        near, far = products_of_parts(tile, 2)
        return jnp.where(tile.distance() < self.window, near, far)
