"""Checks the arguments of attention, and makes one tile, its values and a rule."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from posenc_jax.attention import sinks as sink
from posenc_jax.attention.dropout import checked_dropout
from posenc_jax.attention.rule import Chunks, Rule, check_window, checked_mask, sides_of
from posenc_jax.checks import (
    check_arrays,
    check_one_layer,
    check_scale,
    check_shard,
    check_side,
    check_widths,
    count_of,
)
from posenc_jax.encoding import Encoding, HeadShard, Side, Tile, check_overrides
from posenc_jax.tokens import Tokens, check_tokens


def whole_tile(
    encoding, q_BTHC, k_BSKC, v_BSKC, q_tokens, k_tokens, x_BTD, scale, causal=None
) -> tuple[Encoding, Tile, jax.Array, Side]:
    """Returns the encoding, one tile with every query and key, the values, and the query side."""
    check_arrays(q=q_BTHC, k=k_BSKC, v=v_BSKC)
    scheme, q_side, k_side = sides_of_heads(encoding, q_BTHC.shape[2], k_BSKC.shape[2])
    q_tokens, k_tokens = tokens_of_sides(scheme, q_BTHC, k_BSKC, q_tokens, k_tokens, x_BTD)
    scale = q_BTHC.shape[-1] ** -0.5 if scale is None else scale
    scale = jnp.asarray(scale) if isinstance(scale, nnx.Variable) else scale
    check_scale(scale)
    q = scheme.rotate(q_BTHC, q_tokens, q_side)
    if k_tokens.stamp.stage == "rotated":
        check_widths(q, k_BSKC)
    else:
        check_widths(q_BTHC, k_BSKC)
        k_BSKC, v_BSKC = rotate_both(scheme, k_BSKC, v_BSKC, k_tokens, k_side)
    tile = Tile(
        q=q,
        k=k_BSKC,
        q_tokens=q_tokens,
        k_tokens=k_tokens.having(scheme.of_keys(k_tokens.made)),
        scale=scale,
        heads=q_side.heads,
        num_heads=q_side.num_heads,
        causal=causal,
    )
    return scheme, tile, v_BSKC, q_side


def rotate_both(scheme, k_BSKC, v_BSKC, tokens, side) -> tuple[jax.Array, jax.Array]:
    """Returns the keys and the values as the scheme rotates them."""
    return scheme.rotate(k_BSKC, tokens, side), scheme.rotate_values(v_BSKC, tokens, side)


def tile_of_tokens(q_tokens: Tokens, k_tokens: Tokens, heads, num_heads: int) -> Tile:
    """Returns a tile without queries and keys, so that a hook that reads them fails."""
    none: Any = None
    return Tile(none, none, q_tokens, k_tokens, 1.0, heads, num_heads)


def rule_of(scheme, tile, causal, window, mask, sinks, dropout) -> tuple[Tile, Rule]:
    """Returns the tile, and the rule that says which keys each query sees."""
    check_window(window)
    sinks_BTH = None if sinks is None else sink.checked(sinks, tile.q)
    (B, T, H, _), S = tile.q.shape, tile.k.shape[1]
    mask, dropout = checked_mask(mask, B, H, T, S), checked_dropout(dropout)
    in_order = checked_order(scheme, tile, causal, window is not None or callable(mask))
    chunk, window = (window.size, None) if isinstance(window, Chunks) else (None, window)
    if chunk is not None and tile.k_tokens.segment_ids is not None:
        if callable(mask):  # called here, because it reads the index of the whole row
            q_index, k_index = tile.q_tokens.order(), tile.k_tokens.order()
            mask = checked_mask(mask(q_index[:, None, :, None], k_index[:, None, None]), B, H, T, S)
        tile, in_order = _counted_by_segment(tile), False
    before, after = sides_of(window, causal)
    return tile, Rule(before, causal, in_order, chunk, after, mask, sinks_BTH, dropout)


def checked_order(scheme, tile, causal, by_index) -> bool:
    """Returns whether queries and keys are the same tokens, in the order they were written in.

    An order that is needed and not known is refused. ``by_index`` says whether a window, or a mask
    that is a function, needs it.
    """
    T, S = tile.q.shape[1], tile.k.shape[1]
    q_index, k_index = tile.q_tokens.index, tile.k_tokens.index
    if q_index is not None or (k_index is None and T == S):
        return q_index is None
    reads = scheme.whole_rows or "observe" in scheme.hooks()
    if reads or causal or by_index:
        who = type(scheme).__name__ if reads else "a causal mask, a window and a mask by function"
        instead = ", or set causal=False where every query sees every key"
        raise ValueError(
            f"{T} queries and {S} keys do not say in which order they were written, which {who} "
            f"must know: make tokens of all keys, and pass tokens.part(start, {T}) as q_tokens and "
            "tokens as k_tokens" + ("" if reads or by_index else instead)
        )
    return False


def sides_of_heads(encoding, H: int, K: int) -> tuple[Encoding, Side, Side]:
    """Returns the scheme, and the sides of H query heads and of their K kv heads."""
    heads, k_heads, num_heads = None, None, H
    if isinstance(encoding, HeadShard):
        num_heads = count_of("num_heads", encoding.num_heads)
        check_shard(encoding.heads, H, K, num_heads)
        encoding, heads = encoding.encoding, jnp.asarray(encoding.heads)
    check_one_layer(encoding)
    check_overrides(encoding)
    num_kv_heads = num_heads * K // H
    if heads is not None:
        k_heads = heads[:: H // K] // (num_heads // num_kv_heads)
    q_side = Side(heads, num_heads, num_kv_heads, is_query=True)
    return encoding, q_side, Side(k_heads, num_heads, num_kv_heads, is_query=False)


def tokens_of_sides(scheme, q, k, q_tokens, k_tokens, x_BTD) -> tuple[Tokens, Tokens]:
    """Returns the tokens of queries and keys, after the scheme has observed the layer's input.

    The first two axes of ``q`` are batch and queries, those of ``k`` batch and keys.
    """
    check_tokens("q_tokens", q_tokens, scheme)
    if k_tokens is not None:
        check_tokens("k_tokens", k_tokens, scheme)
    observes = x_BTD is not None and "observe" in scheme.hooks()
    if observes and k_tokens is not None:
        raise ValueError(
            "x= is the input of self-attention; where k_tokens are given, observe all tokens once, "
            "tokens.observed(encoding, x), and pass a part of them as q_tokens"
        )
    if observes:
        q_tokens = q_tokens.observed(scheme, x_BTD)
        if x_BTD.shape[0] not in (1, q.shape[0]):
            raise ValueError(
                f"x [B, T, D] of shape {x_BTD.shape} must have as many rows as the queries, which "
                f"have shape {q.shape}: pass the array that they are projected from"
            )
    k_tokens = q_tokens if k_tokens is None else k_tokens
    check_side(scheme, "q_tokens", q_tokens, q)
    check_side(scheme, "k_tokens", k_tokens, k)
    if (q_tokens.segment_ids is None) != (k_tokens.segment_ids is None):
        raise ValueError("segment_ids must be given for both queries and keys, or for neither")
    return q_tokens, k_tokens


def _counted_by_segment(tile: Tile) -> Tile:
    """Returns the tile with the order of tokens counted from the first token of each segment."""
    q_tokens, k_tokens = tile.q_tokens, tile.k_tokens

    def first(q_segments_T, segments_S, order_S):
        by_segment = jnp.lexsort((order_S, segments_S))
        place_T = jnp.searchsorted(segments_S[by_segment], q_segments_T)
        return order_S[by_segment][place_T]

    def counted(tokens):
        arrays: tuple = (tokens.segment_ids, k_tokens.segment_ids, k_tokens.order())
        rows = (jnp.broadcast_to(x, (tile.q.shape[0], x.shape[1])) for x in arrays)
        starts = jax.vmap(first)(*rows)
        return dataclasses.replace(tokens, index=tokens.order() - starts)

    return dataclasses.replace(tile, q_tokens=counted(q_tokens), k_tokens=counted(k_tokens))
