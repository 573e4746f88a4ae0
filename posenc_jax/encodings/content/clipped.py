"""Attention to a table with a row for each clipped distance, as Shaw has it for keys and values.

``table_RC`` has ``R = 2 * reach + 1`` rows: key position minus query position, clipped to
``-reach .. reach``.

Few pairs are looked up one by one. Where every key is ``reach`` or more behind every query, the
first row does for all. Where positions are consecutive, every pair has the first row or the last,
but for those in a band along a diagonal. Which of these a tile is, is seen at run time.
"""

import jax
import jax.numpy as jnp

from posenc_jax.attention.strip import consecutive, may_be_consecutive
from posenc_jax.gather import (
    check_head_dim,
    compares,
    explicit_layout,
    is_far,
    pick,
    row_products,
    tally,
)

_ROWS = 32  # queries that are looked up at once


def add_table_products(logits_BHTS, q_BTHC, table_RC, tile) -> jax.Array:
    """Each logit plus the product of the query and the row of the table for the distance."""
    check_head_dim(q_BTHC, table_RC)
    row_BHTS = _row(tile.distance(), len(table_RC))  # refuses several position axes
    if _is_plain(q_BTHC):
        return logits_BHTS + pick(row_products(q_BTHC, table_RC), row_BHTS)
    q_BHTC = q_BTHC.swapaxes(1, 2)
    return _add(logits_BHTS, q_BHTC, table_RC, tile.q_positions, tile.k_positions)


def mix_table_rows(weights_BHTS, table_RC, tile) -> jax.Array:
    """The sum over keys ``[B, T, H, C]`` of the table's rows for their distances, weighted."""
    row_BHTS = _row(tile.distance(), len(table_RC))
    if _is_plain(weights_BHTS):
        sums_BHTR = tally(weights_BHTS, row_BHTS, len(table_RC))
        return _sums_of_rows(sums_BHTR, table_RC).swapaxes(1, 2)
    return _mix(weights_BHTS, table_RC, tile.q_positions, tile.k_positions).swapaxes(1, 2)


def _is_plain(x):
    """Whether every pair is looked up: kernels know no branches, Explicit meshes no slices."""
    return compares() or explicit_layout(x) is not None


@jax.custom_vjp
def _add(logits_BHTS, q_BHTC, table_RC, q_positions, k_positions):
    size, reach = len(table_RC), len(table_RC) // 2
    distance = _distance(q_positions, k_positions)
    first, last = jnp.split(_products(q_BHTC, table_RC[:: size - 1]), 2, axis=-1)
    clipped = jnp.where(distance >= reach, first, jnp.where(distance <= -reach, last, 0))
    all_far = is_far(q_positions, k_positions, reach)

    def zeros(q_BHTC, _):
        return jnp.zeros((*q_BHTC.shape[:-1], size))

    products_BHTR = jax.lax.cond(all_far, zeros, _products, q_BHTC, table_RC)
    return _add_unclipped(logits_BHTS + clipped, products_BHTR, q_positions, k_positions, all_far)


def _add_unclipped(logits_BHTS, products_BHTR, q_positions, k_positions, all_far):
    """The products of pairs nearer than the table reaches, a few queries at a time, in place."""
    T, S = logits_BHTS.shape[2:]
    size, reach = products_BHTR.shape[-1], products_BHTR.shape[-1] // 2
    rows = min(_ROWS, T)
    pieces = -(-T // rows)
    cut = jax.lax.dynamic_slice_in_dim

    def add_pieces(logits_BHTS, first, end, columns, start):
        """In each, ``columns`` keys from ``start`` of its first query on."""

        def add_piece(i, logits_BHTS):
            t = jnp.minimum(i * rows, T - rows)
            s = jnp.clip(start(t), 0, S - columns)
            queries = cut(q_positions, t, rows, axis=1)
            distance = _distance(queries, cut(k_positions, s, columns, axis=1))
            found = pick(cut(products_BHTR, t, rows, axis=2), _row(distance, size))
            # Queries that two pieces share belong to the first of them.
            is_new = (t + jnp.arange(rows) >= i * rows)[None, None, :, None]
            found = jnp.where(is_new & (abs(distance) < reach), found, 0)
            found = found + jax.lax.dynamic_slice(logits_BHTS, (0, 0, t, s), found.shape)
            return jax.lax.dynamic_update_slice(logits_BHTS, found, (0, 0, t, s))

        return jax.lax.fori_loop(first, end, add_piece, logits_BHTS)

    all_pieces = jnp.where(all_far, 0, pieces)
    if may_be_consecutive(q_positions, k_positions):
        # Queries are near some key from number ``start`` on, as far as number ``end``.
        start = k_positions[0, 0] - q_positions[0, 0] - reach
        end = k_positions[0, -1] - q_positions[0, 0] + reach
        is_band = consecutive(q_positions, k_positions)
        logits_BHTS = add_pieces(
            logits_BHTS,
            jnp.clip(start // rows, 0, pieces),
            jnp.where(is_band, jnp.clip(-(-end // rows), 0, pieces), 0),
            min(rows + 2 * reach, S),
            lambda t: t - start - 2 * reach,
        )
        all_pieces = jnp.where(is_band, 0, all_pieces)
    return add_pieces(logits_BHTS, 0, all_pieces, S, lambda t: 0)


def _add_backward(operands, d_BHTS):
    q_BHTC, table_RC, *positions = operands

    def gradients(sums_BHTR, rows_RC, q_BHTC):
        return _sums_of_rows(sums_BHTR, rows_RC), _gradient(sums_BHTR, q_BHTC, len(table_RC))

    d_q, d_table = _use_sums(gradients, d_BHTS, table_RC, *positions, q_BHTC)
    return d_BHTS, d_q.astype(q_BHTC.dtype), d_table.astype(table_RC.dtype), None, None


_add.defvjp(lambda *operands: (_add(*operands), operands[1:]), _add_backward)


@jax.custom_vjp
def _mix(weights_BHTS, table_RC, q_positions, k_positions):
    return _use_sums(_sums_of_rows, weights_BHTS, table_RC, q_positions, k_positions)


def _mix_backward(operands, d_BHTC):
    weights_BHTS, table_RC, *positions = operands

    def gradient(sums_BHTR, rows_RC, d_BHTC):
        del rows_RC
        return _gradient(sums_BHTR, d_BHTC, len(table_RC))

    d_weights = _add(jnp.zeros_like(weights_BHTS), d_BHTC, table_RC, *positions)
    d_table = _use_sums(gradient, weights_BHTS, table_RC, *positions, d_BHTC)
    return d_weights, d_table.astype(table_RC.dtype), None, None


_mix.defvjp(lambda *operands: (_mix(*operands), operands), _mix_backward)


def _use_sums(function, weights_BHTS, table_RC, q_positions, k_positions, *operands):
    """``function`` of each query's weights summed by row, the table's rows, and the operands.

    Where all keys are far there is one sum, and the first row alone.
    """
    size = len(table_RC)

    def far(weights_BHTS, table_RC, _, __, *operands):
        return function(weights_BHTS.sum(-1, keepdims=True), table_RC[:1], *operands)

    def near(weights_BHTS, table_RC, q_positions, k_positions, *operands):
        sums_BHTR = _sums(weights_BHTS, size, q_positions, k_positions)
        return function(sums_BHTR, table_RC, *operands)

    all_far = is_far(q_positions, k_positions, size // 2)
    operands = weights_BHTS, table_RC, q_positions, k_positions, *operands
    return jax.lax.cond(all_far, far, near, *operands)


def _sums(weights_BHTS, size, q_positions, k_positions):
    """Each query's weights of the keys of each row, ``[B, H, T, R]``."""

    def of_pairs(weights_BHTS, q_positions, k_positions):
        return tally(weights_BHTS, _row(_distance(q_positions, k_positions), size), size)

    def of_band(weights_BHTS, q_positions, k_positions):
        S, reach = weights_BHTS.shape[-1], size // 2
        distance = _distance(q_positions, k_positions)
        behind, ahead = (
            jnp.where(is_there, weights_BHTS, 0).sum(-1, keepdims=True)
            for is_there in (distance >= reach, distance <= -reach)
        )
        # Every distance between has one key, or none.
        key_TR = (q_positions[0] - k_positions[0, 0])[:, None] + jnp.arange(1 - reach, reach)[None]
        near = pick(weights_BHTS, jnp.clip(key_TR, 0, S - 1)[None, None])
        near = jnp.where((key_TR >= 0) & (key_TR < S), near, 0)
        return jnp.concatenate([behind, near, ahead], axis=-1)

    if not may_be_consecutive(q_positions, k_positions):
        return of_pairs(weights_BHTS, q_positions, k_positions)
    is_band = consecutive(q_positions, k_positions)
    return jax.lax.cond(is_band, of_band, of_pairs, weights_BHTS, q_positions, k_positions)


def _products(q_BHTC, table_RC):
    """``row_products`` of heads that lie first, which costs no transposition here."""
    return jnp.einsum("bhtc,rc->bhtr", q_BHTC.astype(jnp.float32), table_RC.astype(jnp.float32))


def _sums_of_rows(sums_BHTR, table_RC):
    return jnp.einsum("bhtr,rc->bhtc", sums_BHTR, table_RC.astype(jnp.float32))


def _gradient(sums_BHTR, x_BHTC, size):
    """By a table of so many rows, ``[R, C]``; there may be sums for the first of them alone."""
    rows_RC = jnp.einsum("bhtr,bhtc->rc", sums_BHTR, x_BHTC.astype(jnp.float32))
    return jnp.pad(rows_RC, ((0, size - len(rows_RC)), (0, 0)))


def _distance(q_positions, k_positions):
    return q_positions[:, None, :, None] - k_positions[:, None, None, :]


def _row(distance_BHTS, size):
    reach = size // 2
    ahead = jnp.round(-distance_BHTS).astype(jnp.int32)
    return jnp.clip(ahead, -reach, reach) + reach
