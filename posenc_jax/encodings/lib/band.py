"""Adds products of query vectors and vectors of the distance to logits, in a band of distances.

``logit_mn + x_m . P[:, m - n]`` for the distances ``0 <= m - n < E`` that the table P has a column
for, and ``logit_mn`` itself elsewhere. Where positions are consecutive, a few queries at a time are
multiplied with the columns of all their distances. A reshape, which is a plain copy on every
machine, then lays the products out along the diagonals. Logits of keys farther back stay untouched.
"""

import functools

import jax
import jax.numpy as jnp

from posenc_jax.encodings.lib.by_distance import has_diagonals
from posenc_jax.lookup import pick, rows
from posenc_jax.pairs import Pairs

# Queries in one product, which has _ROWS - 1 distances more than each of its queries needs.
_ROWS = 32


def add_band(logits_BHTS, x_BHTR, table_RE, pairs: Pairs) -> jax.Array:
    """Returns logits with the products of ``x`` and the columns for their distances.

    The first column is for a distance of 0. Distances that are not whole numbers are rounded.
    Positions have one axis.
    """
    add = functools.partial(_along_diagonals if has_diagonals(pairs) else _of_pairs, pairs=pairs)
    if pairs.q_tokens.index is None:
        return add(logits_BHTS, x_BHTR, table_RE)
    # Tokens in a loop over tiles have an index. Far tiles are most of a long text.
    is_near = _is_near(pairs, table_RE.shape[1])
    return jax.lax.cond(is_near, add, lambda logits, *_: logits, logits_BHTS, x_BHTR, table_RE)


def _is_near(pairs, extent):
    """Returns whether some distance of the pairs may have a column."""
    q, k = pairs.q_tokens.positions, pairs.k_tokens.positions
    # A distance above -1 may be rounded to 0. A NaN makes both comparisons false, so is near.
    return ~((q.max() - k.min() <= -1) | (q.min() - k.max() >= extent))


def _of_pairs(logits_BHTS, x_BHTR, table_RE, pairs):
    """Looks up the column of each pair."""
    distance_B1TS = jnp.floor(pairs.distance() + 0.5).astype(jnp.int32)
    last = table_RE.shape[1] - 1
    is_inside = (distance_B1TS >= 0) & (distance_B1TS <= last)
    products_BHTE = jnp.einsum("bhtr,re->bhte", x_BHTR, table_RE)
    picked = pick(products_BHTE, jnp.clip(distance_B1TS, 0, last))
    return logits_BHTS + jnp.where(is_inside, picked, 0)


def _along_diagonals(logits_BHTS, x_BHTR, table_RE, pairs):
    (T, S), (R, extent) = logits_BHTS.shape[2:], table_RE.shape
    size = _ROWS if T % _ROWS == 0 else T
    width = min(S, extent + T - 1)
    # The distance between the first query and the first key, and the first key of the band.
    ahead = pairs.q_tokens.positions[0, 0] - pairs.k_tokens.positions[0, 0]
    start = jnp.clip(ahead - extent + 1, 0, S - width)
    # The distances of each piece, from its last query and the first key on downwards.
    first_P = (ahead - start) + jnp.arange(0, T, size, dtype=jnp.int32)
    distance_PN = first_P[:, None] + jnp.arange(size - 1, -width, -1, dtype=jnp.int32)[None]
    columns_PNR = rows(table_RE.T, jnp.clip(distance_PN, 0, extent - 1))
    is_inside = (distance_PN >= 0) & (distance_PN < extent)
    columns_PNR = jnp.where(is_inside[..., None], columns_PNR, 0)
    x_BHPtR = x_BHTR.reshape(*x_BHTR.shape[:2], -1, size, R)
    products = jnp.einsum("bhptr,pnr->pbhtn", x_BHPtR, columns_PNR)
    band = jnp.moveaxis(_shifted(products)[..., :width], 0, 2).reshape(*x_BHTR.shape[:3], width)
    if width == S:
        return logits_BHTS + band
    band = band + jax.lax.dynamic_slice_in_dim(logits_BHTS, start, width, axis=3)
    return jax.lax.dynamic_update_slice_in_dim(logits_BHTS, band, start, axis=3)


def _shifted(products):
    """Shifts row t of ``[..., size, N]`` so that it begins with its element ``size - 1 - t``."""
    *outer, size, N = products.shape
    axis = len(outer)
    longer = jnp.pad(products, [(0, 0)] * (axis + 1) + [(0, 1)])
    # With N + 1 elements in each row, cutting the flat array into rows of N shifts each by one more
    # than the row before.
    laid_out = longer.reshape(*outer, size * (N + 1))
    laid_out = jax.lax.slice_in_dim(laid_out, size - 1, size - 1 + size * N, axis=axis)
    return laid_out.reshape(*outer, size, N)
