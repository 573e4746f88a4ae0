"""ReRoPE, Self-Extend, Jet-Long and dual chunk attention share one form: a map of the distance.

They let a trained RoPE model run past its training length by mapping each distance to one that the
model has seen. They need two or three rotations of queries and keys, and each logit is a
product under one of the rotations. So ``rotate`` returns all rotations side by side, and ``score``
replaces the logits by products of the parts. The product of the whole is never used, so XLA leaves
it out.

All are made for causal attention with positions that grow in the order of the tokens. A key ahead
of its query has a negative distance, which counts as near.
"""

import jax
import jax.numpy as jnp

from posenc_jax.attention.dense import products
from posenc_jax.encodings.rotary.base import Rotary
from posenc_jax.pairs import Pairs, Side
from posenc_jax.tokens import Tokens


class PositionMap(Rotary):
    """Rotates as RoPE by each of several tables, which ``prepare`` makes for queries and keys."""

    def kept(self, made):
        return None  # ``score`` reads positions alone

    def rotate(self, x_BTHC, tokens: Tokens, side: Side):
        of_queries, of_keys = tokens.made
        return self.rotate_by_each(x_BTHC, of_queries if side.is_query else of_keys)

    def rotate_by_each(self, x_BTHC: jax.Array, tables) -> jax.Array:
        """Returns queries or keys rotated by each of some cosines and sines, side by side."""
        return jnp.concatenate([self.rotate_by(x_BTHC, cos, sin) for cos, sin in tables], axis=-1)


def products_of_parts(pairs: Pairs, count: int) -> list[jax.Array]:
    """Returns the scaled logits of each of ``count`` rotations, float32 ``[B, H, T, S]``."""
    sides = (jnp.split(side, count, axis=-1) for side in (pairs.q, pairs.k))
    return [products(q, k) * pairs.scale for q, k in zip(*sides, strict=True)]
