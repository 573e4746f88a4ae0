"""Computes attention in forms that spare XLA:CPU copies of large arrays.

``dense`` stands beside the reference in ``dense.py``, and gives the same numbers by products with
gradients of their own, in reverse mode. Without these forms XLA:CPU transposes the ``[T, S]``
matrix of weights for the gradients of keys and values, which takes an eighth of attention's time.
For products of a few queries it transposes all keys, and it copies cache slots that are written and
then read. The form is chosen when a program is lowered, so a program that a CPU host exports for an
accelerator has the plain form.
"""

import dataclasses
import functools
import os
from collections.abc import Callable

import jax
import jax.numpy as jnp

from posenc_jax.attention.dense import grouped, scored, softmax
from posenc_jax.attention.rule import Rule
from posenc_jax.encoding import Encoding
from posenc_jax.pairs import Pairs

# The most queries of a kv head, its whole group counted, for which transposing keys would be slow.
_FEW = 64

# The most vectors for which a product with a table has its rows first.
_FEW_ROWS = 16

# From _LEAST_ROWS to _MOST_ROWS queries attend in parts. With gradients two parts are fastest, up
# to _MOST_LOGITS logits (32 MiB); in four parts a training step takes as long, and a third longer
# to compile. Without gradients parts of _ROWS are, which hold no more logits than a tile does. For
# more queries they would save a tenth of the time, and take twice as long to compile.
_PARTS, _LEAST_ROWS, _MOST_ROWS, _MOST_LOGITS, _ROWS = 2, 256, 1024, 2**23, 256

_einsum = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)


def has_one_core() -> bool:
    """Returns whether this process may use only one core, which only Linux can tell."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0)) == 1
    return os.cpu_count() == 1


def dense(encoding: Encoding, tile: Pairs, v_BSKC: jax.Array, rule: Rule) -> jax.Array:
    """Attends as the reference does, by products that have other forms on a CPU."""
    logits_BHTS = scored(encoding, products(tile.q, tile.k), tile)
    weights_BHTS, totals_BTH1 = softmax(logits_BHTS, tile, rule)
    out_BTHC = encoding.mix(weighted_sums(weights_BHTS, v_BSKC), weights_BHTS, tile)
    return (out_BTHC / totals_BTH1).astype(v_BSKC.dtype)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def in_parts_or(parts: tuple[int, int], usual: Callable, *operands) -> jax.Array:
    """Attends part by part on a CPU, and in the implementation ``usual`` elsewhere.

    ``parts`` are the numbers of parts without and with gradients, where 1 is ``usual`` everywhere.
    The operands are those of ``usual``.
    """
    return _on_cpu_or(parts[0], usual, *operands)


@in_parts_or.defjvp
def _differentiated(parts, usual, operands, tangents):
    run = usual if parts[1] == 1 else functools.partial(_on_cpu_or, parts[1], usual)
    return jax.jvp(run, operands, tangents)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _on_cpu_or(parts, usual, *operands):
    # Both forms are traced, which jit does once for all layers that are alike.
    on_cpu = functools.partial(in_parts, parts)
    return jax.lax.platform_dependent(*operands, cpu=on_cpu, default=usual)


def in_parts(
    parts: int, encoding: Encoding, tile: Pairs, v_BSKC: jax.Array, rule: Rule
) -> jax.Array:
    """Attends as ``dense`` does, to a part of the queries at a time, with the keys up to its end.

    In two parts it computes three quarters of the logits, in many parts little more than half of
    them. ``parts_of`` says where the result is the same and the computation is faster.
    """
    T = tile.q.shape[1]
    size = -(-T // parts)
    rows = [_rows(tile, v_BSKC, rule, start, min(size, T - start)) for start in range(0, T, size)]
    return jnp.concatenate([dense(encoding, *part) for part in rows], axis=1)


def parts_of(encoding: Encoding, tile: Pairs, rule: Rule, is_few: bool) -> tuple[int, int]:
    """Returns in how many parts queries attend fastest without and with gradients.

    ``is_few`` says whether they would otherwise attend in one part, and not in tiles. One core is
    faster with tiles, which stay in its cache.
    """
    B, T, H, _ = tile.q.shape
    is_array = rule.mask is not None and not callable(rule.mask)
    is_causal = rule.causal and rule.in_order and not is_array and not encoding.whole_rows
    # T and B may be symbols of jax.export.
    if not (is_causal and isinstance(T, int) and T >= _LEAST_ROWS):
        return 1, 1
    if T > _MOST_ROWS or not isinstance(B, int) or has_one_core():
        return (_PARTS, _PARTS) if is_few else (1, 1)
    is_small = is_few or B * H * T * tile.k.shape[1] <= _MOST_LOGITS
    return max(_PARTS, -(-T // _ROWS)), _PARTS if is_small else 1


def _rows(tile, v_BSKC, rule, start, count) -> tuple[Pairs, jax.Array, Rule]:
    """Returns the tile of ``count`` queries from ``start`` on, its values, and its rule."""
    end = start + count
    part = dataclasses.replace(
        tile,
        q=tile.q[:, start:end],
        k=tile.k[:, :end],
        q_tokens=tile.q_tokens.part(start, count),
        k_tokens=tile.k_tokens.part(0, end),
    )
    sinks = rule.sinks
    if sinks is not None and sinks.shape[1] > 1:
        sinks = sinks[:, start:end]
    return part, v_BSKC[:, :end], dataclasses.replace(rule, in_order=False, sinks=sinks)


def products(q_BTHC: jax.Array, k_BSKC: jax.Array) -> jax.Array:
    """Multiplies each query with the keys of its kv head: float32 ``[B, H, T, S]``."""
    B, T, H, _ = q_BTHC.shape
    q_BKGTC = grouped(q_BTHC, k_BSKC.shape[2])
    return _products(q_BKGTC, k_BSKC.swapaxes(1, 2)).reshape(B, H, T, -1)


def weighted_sums(weights_BHTS: jax.Array, v_BSKC: jax.Array) -> jax.Array:
    """Sums the values of each query's kv head by its weights: float32 ``[B, T, H, C]``."""
    B, H, T, S = weights_BHTS.shape
    weights_BKGTS = weights_BHTS.reshape(B, v_BSKC.shape[2], -1, T, S).astype(v_BSKC.dtype)
    out_BKGTC = _weighted_sums(weights_BKGTS, v_BSKC.swapaxes(1, 2))
    return out_BKGTC.reshape(B, H, T, -1).swapaxes(1, 2)


def _sums_over_queries(x_BKGTC, matrix_BKGTS) -> jax.Array:
    """Sums the vectors of the queries, weighted for each key: float32 ``[B, K, S, C]``."""

    def transposed(x_BKGTC, matrix_BKGTS):
        sums_BKCS = _einsum("bkgtc,bkgts->bkcs", x_BKGTC, matrix_BKGTS)
        # The barrier keeps XLA from undoing this form.
        return jax.lax.optimization_barrier(sums_BKCS).swapaxes(2, 3)

    plain = functools.partial(_einsum, "bkgtc,bkgts->bksc")
    return jax.lax.platform_dependent(x_BKGTC, matrix_BKGTS, cpu=transposed, default=plain)


def tokens_last(x_BKGTC) -> jax.Array:
    """Returns ``[B, K, C, G, T]``, on a CPU in this memory layout.

    In sums over queries XLA:CPU then need not transpose the left operand for each tile.
    """

    def moved(x_BKGTC):
        return jnp.moveaxis(x_BKGTC, -1, 2)

    def held(x_BKGTC):
        return jax.lax.optimization_barrier(moved(x_BKGTC))

    return jax.lax.platform_dependent(x_BKGTC, cpu=held, default=moved)


def by_rows(x_ND, table_VD) -> jax.Array:
    """Multiplies vectors with every row of a table: float32 ``[N, V]``."""

    def rows_first(x_ND, table_VD):
        return jax.lax.optimization_barrier(_einsum("vd,nd->vn", table_VD, x_ND)).T

    plain = functools.partial(_einsum, "nd,vd->nv")
    count = x_ND.shape[0]
    if not isinstance(count, int) or count > _FEW_ROWS:
        return plain(x_ND, table_VD)
    # XLA:CPU would transpose the whole table, which takes seven times as long for one vector.
    return jax.lax.platform_dependent(x_ND, table_VD, cpu=rows_first, default=plain)


def written(slots, tokens, at) -> jax.Array:
    """Returns ``slots`` with ``tokens`` written into them from the indices ``at`` on.

    On a CPU the write is in a branch that is always taken, which the compiler cannot know. Without
    the branch it would copy all slots whenever the result is read.
    """

    def plain(slots, tokens, *at):
        return jax.lax.dynamic_update_slice(slots, tokens, at)

    def branch(slots, tokens, *at):
        return jax.lax.cond(sum(at) >= 0, plain, lambda slots, *_: slots, slots, tokens, *at)

    at = [jnp.asarray(index, jnp.int32) for index in at]
    return jax.lax.platform_dependent(slots, tokens, *at, cpu=branch, default=plain)


@jax.custom_vjp
def _products(q_BKGTC, k_BKSC):
    def keys_first(q_BKGTC, k_BKSC):
        products_BKSGT = _einsum("bksc,bkgtc->bksgt", k_BKSC, q_BKGTC)
        return jnp.moveaxis(jax.lax.optimization_barrier(products_BKSGT), 2, -1)

    plain = functools.partial(_einsum, "bkgtc,bksc->bkgts")
    queries = q_BKGTC.shape[2] * q_BKGTC.shape[3]
    if not isinstance(queries, int) or queries > _FEW:
        return plain(q_BKGTC, k_BKSC)
    # XLA:CPU would transpose all keys in memory for a few queries.
    return jax.lax.platform_dependent(q_BKGTC, k_BKSC, cpu=keys_first, default=plain)


def _products_backward(operands, d_BKGTS):
    q_BKGTC, k_BKSC = operands
    d_BKGTS = d_BKGTS.astype(k_BKSC.dtype)
    d_q = _einsum("bkgts,bksc->bkgtc", d_BKGTS, k_BKSC)
    return d_q.astype(q_BKGTC.dtype), _sums_over_queries(q_BKGTC, d_BKGTS).astype(k_BKSC.dtype)


_products.defvjp(lambda q, k: (_products(q, k), (q, k)), _products_backward)


@jax.custom_vjp
def _weighted_sums(weights_BKGTS, v_BKSC):
    return _einsum("bkgts,bksc->bkgtc", weights_BKGTS, v_BKSC)


def _weighted_sums_backward(operands, d_BKGTC):
    weights_BKGTS, v_BKSC = operands
    d_BKGTC = d_BKGTC.astype(v_BKSC.dtype)
    d_weights = _einsum("bkgtc,bksc->bkgts", d_BKGTC, v_BKSC)
    d_v = _sums_over_queries(d_BKGTC, weights_BKGTS)
    return d_weights.astype(weights_BKGTS.dtype), d_v.astype(v_BKSC.dtype)


_weighted_sums.defvjp(lambda w, v: (_weighted_sums(w, v), (w, v)), _weighted_sums_backward)
