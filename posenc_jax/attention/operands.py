"""Checks the arguments of attention, and makes all pairs, the values and a rule."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from posenc_jax.attention import sinks as sink
from posenc_jax.attention.dropout import checked_dropout
from posenc_jax.attention.rule import Chunks, Rule, check_window, checked_mask, sides_of
from posenc_jax.checks import check_arrays, check_scale, check_shard, check_side, check_widths
from posenc_jax.encoding import Here, check_here, rotated
from posenc_jax.keys import Keys, structure
from posenc_jax.pairs import Pairs


def all_pairs(
    here, q_BTHC, k_BSKC, v_BSKC, x_BTD, scale, causal=None
) -> tuple[Here, Pairs, jax.Array]:
    """Returns the encoding at its tokens, the pairs of all queries and keys, and the values.

    ``k_BSKC`` may be Keys, which have the values too.
    """
    if isinstance(k_BSKC, Keys):
        check_arrays(q=q_BTHC, k=k_BSKC.k, v=k_BSKC.v)
    else:
        check_arrays(q=q_BTHC, k=k_BSKC, v=v_BSKC)
        check_widths(q_BTHC, k_BSKC)
    here, keys = both_sides(here, "q", q_BTHC, k_BSKC, v_BSKC, x_BTD)
    scale = q_BTHC.shape[-1] ** -0.5 if scale is None else scale
    scale = jnp.asarray(scale) if isinstance(scale, nnx.Variable) else scale
    check_scale(scale)
    side = here.side(q_BTHC.shape[2], is_query=True)
    q = here.encoding.rotate(q_BTHC, here.tokens, side)
    check_widths(q, keys.k)
    pairs = Pairs(q, keys.k, here.tokens, keys.tokens, scale, side, causal)
    return here, pairs, keys.v


def both_sides(here, name, q_BTHC, k_BSKC, v_BSKC, x_BTD) -> tuple[Here, Keys]:
    """Returns the encoding at the queries, after it has seen their input, and the Keys.

    ``k_BSKC`` may be Keys already, or None where only values are read. Errors call the queries
    ``name``; they may be anything with the same first three axes.
    """
    given = k_BSKC if isinstance(k_BSKC, Keys) else None
    if isinstance(here, Here) and x_BTD is not None and here.encoding.overrides("observe"):
        if given is not None:
            raise ValueError(
                "x= is the input of self-attention; where Keys are given, call here.see(x) for all "
                "tokens once, and make queries and Keys by what it returns"
            )
        here, _ = here.see(x_BTD)
        if x_BTD.shape[0] not in (1, q_BTHC.shape[0]):
            raise ValueError(
                f"x [B, T, D] of shape {x_BTD.shape} must have as many rows as {name}, which has "
                f"shape {q_BTHC.shape}: pass the array that queries are projected from"
            )
    check_here(here)
    check_side(here.tokens, name, q_BTHC)
    values = v_BSKC if given is None else given.v
    _check_axis_of_tokens(values)
    if here.heads is not None:
        check_shard(here.heads, q_BTHC.shape[2], values.shape[2], here.num_heads)
    if given is None:
        check_side(here.tokens, "keys", v_BSKC)
        return here, rotated(here, k_BSKC, v_BSKC)
    if v_BSKC is not None:
        raise ValueError("v must be left out where Keys are given: they have the values")
    _check_keys(here, given)
    return here, given


def _check_axis_of_tokens(v_BSKC: jax.Array) -> None:
    """Checks that no Explicit axis of a mesh but the one called ``context`` shares the tokens."""
    axis = jax.typeof(v_BSKC).sharding.spec[1]
    if axis not in (None, "context"):
        raise ValueError(
            f"keys and values are sharded by token over the Explicit axis {axis!r} of the mesh, "
            'and attention passes them on only over an axis called "context": call the axis so, '
            "or gather them first, jax.sharding.reshard"
        )


def _check_keys(here: Here, keys: Keys) -> None:
    """Checks that queries under ``here`` can attend to the keys."""
    if keys.made_by != structure(here.encoding):
        raise ValueError(
            f"the Keys were made by another encoding than this {type(here.encoding).__name__}, or "
            "by it with other keywords: where layers have several encodings, keep Keys for each"
        )
    if (here.tokens.segment_ids is None) != (keys.tokens.segment_ids is None):
        raise ValueError("segment_ids must be given for both queries and keys, or for neither")


def rule_of(scheme, pairs, causal, window, mask, sinks, dropout) -> tuple[Pairs, Rule]:
    """Returns the pairs, and the rule that says which keys each query sees."""
    check_window(window)
    sinks_BTH = None if sinks is None else sink.checked(sinks, pairs.q)
    (B, T, H, _), S = pairs.q.shape, pairs.k.shape[1]
    mask, dropout = checked_mask(mask, B, H, T, S), checked_dropout(dropout)
    in_order = checked_order(scheme, pairs, causal, window is not None or callable(mask))
    chunk, window = (window.size, None) if isinstance(window, Chunks) else (None, window)
    if chunk is not None and pairs.k_tokens.segment_ids is not None:
        if callable(mask):  # called here, because it reads the index of the whole row
            q_index, k_index = pairs.q_tokens.order(), pairs.k_tokens.order()
            mask = checked_mask(mask(q_index[:, None, :, None], k_index[:, None, None]), B, H, T, S)
        pairs, in_order = _counted_by_segment(pairs), False
    before, after = sides_of(window, causal)
    return pairs, Rule(before, causal, in_order, chunk, after, mask, sinks_BTH, dropout)


def checked_order(scheme, pairs, causal, by_index) -> bool:
    """Returns whether queries and keys are the same tokens, in the order they were written in.

    An order that is needed and not known is refused. ``by_index`` says whether a window, or a mask
    that is a function, needs it.
    """
    T, S = pairs.q.shape[1], pairs.k.shape[1]
    q_index, k_index = pairs.q_tokens.index, pairs.k_tokens.index
    if q_index is not None or (k_index is None and T == S):
        return q_index is None
    reads = scheme.whole_rows or scheme.overrides("observe")
    if reads or causal or by_index:
        who = type(scheme).__name__ if reads else "a causal mask, a window and a mask by function"
        instead = ", or set causal=False where every query sees every key"
        raise ValueError(
            f"{T} queries and {S} keys do not say in which order they were written, which {who} "
            f"must know: make both at once and attend from a part, here.part(start, {T}) to "
            "here.keys(k, v); or give encoding.at(..., index=)"
            + ("" if reads or by_index else instead)
        )
    return False


def _counted_by_segment(pairs: Pairs) -> Pairs:
    """Returns the pairs with the order of tokens counted from the first token of each segment."""
    q_tokens, k_tokens = pairs.q_tokens, pairs.k_tokens

    def first(q_segments_T, segments_S, order_S):
        by_segment = jnp.lexsort((order_S, segments_S))
        place_T = jnp.searchsorted(segments_S[by_segment], q_segments_T)
        return order_S[by_segment][place_T]

    def counted(tokens):
        arrays: tuple = (tokens.segment_ids, k_tokens.segment_ids, k_tokens.order())
        rows = (jnp.broadcast_to(x, (pairs.q.shape[0], x.shape[1])) for x in arrays)
        starts = jax.vmap(first)(*rows)
        return dataclasses.replace(tokens, index=tokens.order() - starts)

    return dataclasses.replace(pairs, q_tokens=counted(q_tokens), k_tokens=counted(k_tokens))
