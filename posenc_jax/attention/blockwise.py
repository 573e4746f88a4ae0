"""Computes attention tile by tile, in memory linear in the number of tokens, for every scheme.

The softmax of a row is accumulated tile by tile, and the backward pass computes the tiles again
from the log-sum-exp of each row (FlashAttention-2, https://arxiv.org/abs/2307.08691). The hooks of
a scheme are run, and differentiated, inside each tile. Tiles in which no query may see a key are
not visited.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from posenc_jax.attention import sinks as sink
from posenc_jax.attention.cpu import has_one_core, tokens_last
from posenc_jax.attention.dense import FLOOR, TINY, grouped, products_of_groups, scored, ungrouped
from posenc_jax.attention.gradients import add_gradients, cast, floats, zero_gradients
from posenc_jax.attention.rule import Rule
from posenc_jax.attention.visits import visits
from posenc_jax.encoding import Encoding
from posenc_jax.pairs import Pairs

# The most logits of a tile with whole rows: 64 MiB, and a few times as much for intermediates.
MOST_LOGITS = 2**24

# XLA:CPU runs a product on several cores only if its matrices are as large as a long text's tile.
# One core is faster with smaller ones, which stay in its cache, but not at every length: DeBERTa,
# whose hooks read a whole table in each tile, is slower with many tiles.
_OF_SHORT, _OF_LONG = 128, 512


class Rows(NamedTuple):
    """Holds queries, or keys and values, heads first, with their tokens."""

    x: Any  # queries [B, K, G, T, C] or keys [B, K, S, C], rotated
    v: Any  # values [B, K, S, C]; None with queries
    tokens: Any  # Tokens whose index is written out, unless each tile holds all of them


# Each part of Rows has its tokens along one axis.
_AXES = Rows(x=-2, v=-2, tokens=1)


class Shared(NamedTuple):
    """Holds the arrays that all tiles have in common."""

    encoding: Encoding
    scale: Any  # None where it is a Python number, which needs no gradient and is in the plan
    side: Any
    rule: Rule  # without sinks, which belong to rows


@dataclasses.dataclass(frozen=True)
class Plan:
    """Holds the sizes and numbers that are static while a program is traced."""

    scale: float | None  # None where it is an array, which is in ``Shared``
    q_block: int  # the most queries of a tile
    k_block: int  # the most keys of a tile
    one_core: bool  # whether a program that is lowered for a CPU has the tiles of one core


class _Block(NamedTuple):
    """Holds some consecutive tokens of queries or of keys."""

    rows: Rows
    start: Any
    is_new: Any  # bool [size], or None for all: the last block may begin within the one before


def blockwise(
    encoding: Encoding, tile: Pairs, v_BSKC, rule: Rule, *, block: int | None = None
) -> jax.Array:
    """Attends tile by tile over all queries and keys, ``[B, T, H, C]``; see ``attend``.

    ``block`` is the number of queries, and of keys, in one tile of the loop; by default it depends
    on how many there are. A scheme that needs whole rows gets a few queries and every key.
    """
    return attend_by((forward, backward), *take_apart(encoding, tile, v_BSKC, rule, block))


def take_apart(encoding, tile, v_BSKC, rule, block=None):
    """Returns the plan, queries, keys, the arrays that all tiles share, and the sinks.

    There is a sink for each row of logits, ``[B, K, G, T]``, or None where there are none.
    """
    B, T, H, _ = tile.q.shape
    S, K = v_BSKC.shape[1:3]
    k_block, one_core = block, False
    if encoding.whole_rows:
        block, k_block = block or max(1, MOST_LOGITS // (B * H * S)), S
    elif block is None:
        block = k_block = _OF_SHORT if max(T, S) <= 512 else _OF_LONG
        one_core = 512 < max(T, S) <= 1024 and has_one_core()
    is_number = isinstance(tile.scale, int | float)
    plan = Plan(
        scale=tile.scale if is_number else None,
        q_block=block,
        k_block=k_block,
        one_core=one_core,
    )
    queries = Rows(grouped(tile.q, K), None, _with_order(tile.q_tokens))
    # With whole rows an index of None stays None: it tells hooks the order during tracing.
    k_tokens = tile.k_tokens if encoding.whole_rows else _with_order(tile.k_tokens)
    keys = Rows(tile.k.swapaxes(1, 2), v_BSKC.swapaxes(1, 2), k_tokens)
    window, after = jax.tree.map(jnp.int32, (rule.window, rule.after))
    sinks = sink.by_row(rule.sinks, tile.q)
    sinks = None if sinks is None else sinks.reshape(B, K, H // K, T)
    rule = dataclasses.replace(rule, window=window, after=after, in_order=False, sinks=None)
    shared = Shared(encoding, None if is_number else tile.scale, tile.side, rule)
    return plan, queries, keys, shared, sinks


def _with_order(tokens):
    return dataclasses.replace(tokens, index=tokens.order())


def attend_by(passes: tuple[Callable, Callable], plan, *operands) -> jax.Array:
    """Attends to what ``take_apart`` returned, ``[B, T, H, C]`` in the dtype of the values.

    The two passes, such as ``forward`` and ``backward``, go over all tiles.
    """
    return ungrouped(_attend(passes, plan, *operands))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _attend(passes, plan, queries, keys, shared, sinks):
    return _attend_forward(passes, plan, queries, keys, shared, sinks)[0]


def _attend_forward(passes, plan, queries, keys, shared, sinks):
    # Sinks belong to queries, so they are added once, after all keys.
    out_BKGTC, lse_BKGT = sink.put_in(passes[0](plan, queries, keys, shared), sinks)
    out_BKGTC = out_BKGTC.astype(keys.v.dtype)
    return out_BKGTC, (queries, keys, shared, sinks, out_BKGTC, lse_BKGT)


def _attend_backward(passes, plan, saved, d_out_BKGTC):
    *operands, sinks, out_BKGTC, lse_BKGT = saved
    delta_BKGT = (d_out_BKGTC.astype(jnp.float32) * out_BKGTC.astype(jnp.float32)).sum(-1)
    gradients = passes[1](plan, *operands, d_out_BKGTC, lse_BKGT, delta_BKGT)
    d_sinks = sink.gradient(sinks, lse_BKGT, delta_BKGT)
    return cast((*gradients, d_sinks), (*operands, sinks))


_attend.defvjp(_attend_forward, _attend_backward)


# Without jit, JAX would compile the loops anew at each call outside of a compiled program.
@functools.partial(jax.jit, static_argnums=0)
def forward(plan, queries, keys, shared):
    """Returns attention ``[B, K, G, T, C]`` and log-sum-exps of rows ``[B, K, G, T]``, float32."""
    return _in_tiles(_forward, plan, queries, keys, shared)


def _in_tiles(run, plan, *operands):
    """Calls ``run(plan, *operands)``, with smaller tiles if it is lowered for one core of a CPU."""
    queries, keys = operands[:2]
    sizes = min(plan.q_block, queries.tokens.count), min(plan.k_block, keys.tokens.count)
    plan = dataclasses.replace(plan, q_block=sizes[0], k_block=sizes[1])
    if not plan.one_core:
        return run(plan, *operands)
    q_block, k_block = (min(_OF_SHORT, size) for size in (plan.q_block, plan.k_block))
    small = dataclasses.replace(plan, q_block=q_block, k_block=k_block)
    on_cpu, elsewhere = (functools.partial(run, piece) for piece in (small, plan))
    return lax.platform_dependent(*operands, cpu=on_cpu, default=elsewhere)


def _forward(plan, queries, keys, shared):
    blocks = plan.q_block, plan.k_block
    visited, counts = visits(shared.rule, queries.tokens, keys.tokens, *blocks)[0]

    def rows(i, results):
        out, lse = results
        q = _block(queries, i, plan.q_block)
        zeros = _zero_rows(q.rows, keys)

        def step(n, running):
            largest, total, values = running
            k = _block(keys, visited[i, n], plan.k_block)
            tile = _tile(plan, shared, q.rows, k.rows)
            products = products_of_groups(q.rows.x, k.rows.x)
            logits = scored(shared.encoding, products, tile)
            # Queries that two blocks share are computed twice, to the same numbers.
            visible = _visible_pairs(shared, q._replace(is_new=None), k)
            logits = jnp.where(visible, logits, -jnp.inf)
            logits = logits.reshape(*largest.shape, -1)
            highest = jnp.maximum(largest, logits.max(-1))
            shrink = jnp.exp(largest - highest)
            weights = jnp.exp(logits - highest[..., None])
            total = total * shrink + weights.sum(-1)
            weights = _dropped(plan, shared, q.rows, k.rows, weights)
            added = _dot("bkgts,bksc->bkgtc", weights.astype(k.rows.v.dtype), k.rows.v)
            added = _mix(shared.encoding, added, weights, tile)
            return highest, total, values * shrink[..., None] + added

        running = jnp.full_like(zeros[..., 0], FLOOR), zeros[..., 0], zeros
        largest, total, values = lax.fori_loop(0, counts[i], step, running)
        total = jnp.maximum(total, TINY)
        out = lax.dynamic_update_slice_in_dim(out, values / total[..., None], q.start, -2)
        lse = lax.dynamic_update_slice_in_dim(lse, largest + jnp.log(total), q.start, -1)
        return out, lse

    out = _zero_rows(queries, keys)
    return lax.fori_loop(0, len(counts), rows, (out, out[..., 0]))


@functools.partial(jax.jit, static_argnums=0)
def backward(plan, queries, keys, shared, d_out, lse, delta):
    """Returns the gradients by the floating-point arrays of queries, keys and ``shared``, float32.

    ``d_out [B, K, G, T, C]`` is the output's gradient, ``delta`` its product with the output, row
    by row, and ``lse`` as ``forward`` gives it, both ``[B, K, G, T]``. All other arrays have None
    in their place.
    """
    return _in_tiles(_backward, plan, queries, keys, shared, d_out, lse, delta)


def _backward(plan, queries, keys, shared, d_out, lse, delta):
    blocks = plan.q_block, plan.k_block
    visited, counts = visits(shared.rule, queries.tokens, keys.tokens, *blocks)[1]
    d_out = d_out.astype(keys.v.dtype)
    q_transposed, d_out_transposed = tokens_last(queries.x), tokens_last(d_out)

    def columns(j, gradients):
        d_queries, d_keys, d_shared = gradients
        k = _block(keys, j, plan.k_block)

        def step(n, running):
            d_queries, d_k, d_shared, dk_transposed, dv_transposed = running
            q = _block(queries, visited[j, n], plan.q_block)
            rows = _take(d_out, q, -2), _take(lse, q, -1), _take(delta, q, -1)
            weights, d_products, of_tile = _tile_gradients(plan, q, k, shared, *rows)
            dk_transposed += _sum_over_queries(_take(q_transposed, q, -1), d_products)
            dv_transposed += _sum_over_queries(_take(d_out_transposed, q, -1), weights)
            zeros = zero_gradients(q.rows)
            d_shared, d_q, d_k = add_gradients((d_shared, zeros, d_k), of_tile)
            d_q = d_q._replace(x=d_q.x + _dot("bkgts,bksc->bkgtc", d_products, k.rows.x))
            d_queries = _add_at(d_queries, d_q, q.start)
            return d_queries, d_k, d_shared, dk_transposed, dv_transposed

        zeros = (jnp.zeros_like(x.swapaxes(-1, -2), jnp.float32) for x in (k.rows.x, k.rows.v))
        running = d_queries, zero_gradients(k.rows), d_shared, *zeros
        running = lax.fori_loop(0, counts[j], step, running)
        d_queries, d_k, d_shared, dk_transposed, dv_transposed = running
        dx, dv = (x.swapaxes(-1, -2) for x in (dk_transposed, dv_transposed))
        d_k = d_k._replace(x=d_k.x + dx, v=dv)
        return d_queries, _add_at(d_keys, d_k, k.start), d_shared

    start = zero_gradients((queries, keys, shared))
    return lax.fori_loop(0, len(counts), columns, start)


def _tile_gradients(plan, q: _Block, k: _Block, shared, d_out, lse, delta):
    """Computes one tile again, and returns its weights, and gradients by products and hooks.

    A tile adds ``dropped @ v + mix(dropped)`` to the output, where ``dropped`` are the weights
    ``exp(logits - lse)`` after dropout; the gradients go back through this step by step, and
    ``delta`` comes from ``lse``.

    The weights, after dropout, have the type of the values, and the gradient by the products has
    the type of the keys; both are ``[B, K, G, T, S]``. The last result has the gradients by the
    arrays of ``shared``, queries and keys that the scheme's hooks read.
    """
    operands = shared, q.rows, k.rows

    def score(products, operands):
        return scored(operands[0].encoding, products, _tile(plan, *operands))

    def mix(weights, operands):
        zeros = jnp.zeros_like(d_out, jnp.float32)
        return _mix(operands[0].encoding, zeros, weights, _tile(plan, *operands))

    drop = functools.partial(_dropped, plan, shared, q.rows, k.rows)
    logits, pull_score = jax.vjp(score, products_of_groups(q.rows.x, k.rows.x), operands)
    logits = jnp.where(_visible_pairs(shared, q, k), logits, -jnp.inf)
    weights = jnp.exp(logits.reshape(*d_out.shape[:-1], -1) - lse[..., None])
    dropped, pull_dropped = jax.vjp(drop, weights)
    _, pull_mix = jax.vjp(mix, dropped, operands)
    d_dropped, by_mix = pull_mix(d_out.astype(jnp.float32))
    d_dropped += _dot("bkgtc,bksc->bkgts", d_out, k.rows.v)
    (d_weights,) = pull_dropped(d_dropped)
    d_logits = weights * (d_weights - delta[..., None])
    d_products, by_score = pull_score(_heads(d_logits))
    d_products = d_products.reshape(weights.shape).astype(k.rows.x.dtype)
    by_hooks = add_gradients(floats(by_score), floats(by_mix))
    return dropped.astype(k.rows.v.dtype), d_products, by_hooks


_dot = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)


def map_rows(function: Callable, *rows: Rows) -> Rows:
    """Calls ``function(axis, *arrays)`` with the axis of tokens and every array of ``rows``."""

    def mapped(axis, *parts):
        return jax.tree.map(lambda x, *more: function(axis % x.ndim, x, *more), *parts)

    return jax.tree.map(mapped, _AXES, *rows)


def _block(rows: Rows, i, size: int) -> _Block:
    count = rows.tokens.count
    start = jnp.minimum(i * size, count - size)
    cut = map_rows(lambda axis, x: lax.dynamic_slice_in_dim(x, start, size, axis), rows)
    is_new = None if count % size == 0 else start + jnp.arange(size) >= i * size
    return _Block(cut, start, is_new)


def _take(x, block: _Block, axis: int):
    """Returns the part of ``x`` that belongs to the tokens of ``block``."""
    return lax.dynamic_slice_in_dim(x, block.start, block.rows.tokens.count, axis)


def _add_at(total: Rows, part: Rows, start) -> Rows:
    """Returns ``total`` with ``part`` added from token ``start`` on."""

    def add(axis, total, part):
        old = lax.dynamic_slice_in_dim(total, start, part.shape[axis], axis)
        return lax.dynamic_update_slice_in_dim(total, old + part, start, axis)

    return map_rows(add, total, part)


def _tile(plan: Plan, shared: Shared, q: Rows, k: Rows) -> Pairs:
    return Pairs(
        q=ungrouped(q.x),
        k=k.x.swapaxes(1, 2),
        q_tokens=q.tokens,
        k_tokens=k.tokens,
        scale=shared.scale if plan.scale is None else plan.scale,
        side=shared.side,
        causal=shared.rule.causal,
    )


def _sum_over_queries(x_BKCGT, matrix_BKGTS):
    """Sums the vectors of queries, weighted for each key, transposed: ``[B, K, C, S]``."""
    B, K, C, G, T = x_BKCGT.shape
    x, matrix = x_BKCGT.reshape(B, K, C, G * T), matrix_BKGTS.reshape(B, K, G * T, -1)
    return _dot("bkct,bkts->bkcs", x, matrix)


def _mix(encoding, values_BKGTC, weights_BKGTS, tile):
    mixed_BTHC = encoding.mix(ungrouped(values_BKGTC), _heads(weights_BKGTS), tile)
    return grouped(mixed_BTHC, values_BKGTC.shape[1])


def _heads(x_BKGTS):
    B, K, G, T, S = x_BKGTS.shape
    return x_BKGTS.reshape(B, K * G, T, S)


def _dropped(plan, shared, q: Rows, k: Rows, weights_BKGTS):
    dropout = shared.rule.dropout
    if dropout is None:
        return weights_BKGTS
    factors_BHTS = dropout.factors(_tile(plan, shared, q, k))
    return weights_BKGTS * factors_BHTS.reshape(weights_BKGTS.shape)


def _visible_pairs(shared, q: _Block, k: _Block):
    """Returns which pairs are visible and not counted twice; broadcasts to ``[B, H, T, S]``."""
    rule = shared.rule
    if rule.mask is not None and not callable(rule.mask):
        mask_BHTS = rule.mask
        for axis, block in ((2, q), (3, k)):
            if mask_BHTS.shape[axis] > 1:
                mask_BHTS = _take(mask_BHTS, block, axis)
        rule = dataclasses.replace(rule, mask=mask_BHTS)
    visible = rule.visible(q.rows.tokens, k.rows.tokens)
    visible = True if visible is None else visible
    if q.is_new is not None:
        visible &= q.is_new[None, None, :, None]
    if k.is_new is not None:
        visible &= k.is_new[None, None, None]
    return visible


def _zero_rows(queries: Rows, keys: Rows):
    """Returns float32 zeros ``[B, K, G, T, C]``, C of the values, sharded as queries are."""
    zeros = jnp.zeros_like(queries.x[..., :1], jnp.float32)
    return jnp.broadcast_to(zeros, (*zeros.shape[:-1], keys.v.shape[-1]))
