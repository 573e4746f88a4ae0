"""Runs attention under any encoding.

An implementation of attention is a name or a function. The names are

    dense       all logits at once: the reference, and the only one that can be differentiated in
                forward mode or more than once;
    blockwise   the logits of one tile at a time, in memory linear in T;
    ring        the same with tokens sharded over the mesh axis "context";
    fused       cuDNN's kernel or XLA's, for schemes that leave the logits alone;
    pallas      our kernel for GPU and TPU, not measured yet.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from posenc_jax.attention import cpu
from posenc_jax.attention import sinks as sink
from posenc_jax.attention.blockwise import MOST_LOGITS, blockwise
from posenc_jax.attention.dense import dense, products
from posenc_jax.attention.fused import cudnn_takes, fused, is_for_gpu, is_fusable
from posenc_jax.attention.ring import context_size, ring, zigzag
from posenc_jax.attention.rule import Chunks, Rule, check_window
from posenc_jax.checks import (
    check_arrays,
    check_keys,
    check_one_layer,
    check_scale,
    check_shard,
    check_side,
    check_sides,
    check_tokens,
)
from posenc_jax.encoding import Encoding, HeadShard, Side, Tile
from posenc_jax.fields import check_flags, count_of
from posenc_jax.tokens import Tokens

__all__ = [
    "IMPLEMENTATIONS",
    "Chunks",
    "Implementation",
    "attend",
    "check_implementation",
    "logits",
    "rotate_keys",
    "zigzag",
]


def pallas(encoding: Encoding, tile: Tile, v_BSKC: jax.Array, rule: Rule) -> jax.Array:
    """Attends in our own kernels, which are imported when they are asked for."""
    from posenc_jax.attention.pallas import pallas as kernels

    return kernels(encoding, tile, v_BSKC, rule)


# An implementation gets one tile that holds every query and key, both already rotated.
Implementation = Callable[[Encoding, Tile, jax.Array, Rule], jax.Array]
IMPLEMENTATIONS: dict[str, Implementation] = {
    "dense": dense,
    "blockwise": blockwise,
    "ring": ring,
    "fused": fused,
    "pallas": pallas,
}

# With at most this many logits in a head, or this few queries, a single product is faster; see
# docs/performance.md.
_FEW_LOGITS, _FEW_QUERIES = 2**19, 16


def attend(
    encoding: Encoding | HeadShard,
    q_BTHC: jax.Array,
    k_BSKC: jax.Array,
    v_BSKC: jax.Array,
    q_tokens: Tokens,
    k_tokens: Tokens | None = None,
    *,
    x: jax.Array | None = None,
    causal: bool = True,
    window: int | jax.Array | Chunks | None = None,
    scale: float | jax.Array | None = None,
    sinks: jax.Array | None = None,
    implementation: str | Implementation | None = None,
) -> jax.Array:
    """Runs softmax attention under ``encoding``, and returns ``[B, T, H, C]``.

    Args:
      encoding: any scheme; a per-layer scheme must hold the parameters of this layer. For some of
        the model's heads, as inside ``shard_map``, pass ``HeadShard(encoding, heads, num_heads)``.
      q_BTHC: queries, not yet rotated.
      k_BSKC: keys, not yet rotated; query head h reads kv head ``h // (H / K)``.
      v_BSKC: values.
      q_tokens: the queries' tokens, from ``encoding.tokens(positions)``.
      k_tokens: the keys' tokens; by default those of the queries. For new queries of a longer text
        pass a part of its tokens: ``attend(e, q, k, v, tokens.part(start, T), tokens)``.
      x: the layer's input ``[B, T, D]``, which queries and keys are projected from, for
        self-attention. Schemes that depend on content (FoX, PaTH, Selective RoPE) read it, and all
        others ignore it.
      causal: whether to hide keys whose index is larger than the query's.
      window: hides keys whose index is smaller than the query's by this much or more; it may be
        traced. ``Chunks(size)`` hides the keys of other chunks than
        the query's.
      scale: factor of the products of queries and keys; by default ``1 / sqrt(C)``, with C as it
        was before ``rotate``.
      sinks: ``[H]`` or ``[B, T, H]``, one more logit for each query, without a key or a value, so
        that the query's weights add up to less than 1; -inf has no effect.
      implementation: a name or a function, as the module describes them. By default it is ring
        where the mesh has an axis "context" that divides the tokens; else fused, where cuDNN takes
        bfloat16 or float16 in written order; else dense for few tokens, with gradients that suit a
        CPU, and blockwise for many.

    Logits are float32 whatever the inputs are. The output of a query that may see no key is 0.

    Raises:
      ValueError: an argument does not fit the others; the message says which, and what to do.
    """
    check_implementation(implementation)
    q_tokens = _with_input(encoding, q_tokens, k_tokens, x)
    scheme, tile, v_BSKC, q_side = _tile(
        encoding, q_BTHC, k_BSKC, v_BSKC, q_tokens, k_tokens, scale
    )
    sinks_BTH = None if sinks is None else sink.checked(sinks, q_BTHC)
    tile, rule = _rule(scheme, tile, causal, window, sinks_BTH)
    if implementation is None:
        implementation = choose(scheme, tile, v_BSKC, rule)
    run = implementation if callable(implementation) else IMPLEMENTATIONS[implementation]
    return scheme.rotate_back(run(scheme, tile, v_BSKC, rule), tile.q_tokens, q_side)


def rotate_keys(
    encoding: Encoding | HeadShard,
    k_BSKC: jax.Array,
    v_BSKC: jax.Array,
    tokens: Tokens,
    *,
    num_heads: int,
) -> tuple[jax.Array, jax.Array, Tokens]:
    """Rotates keys and values once, for a cache that stores them as attention reads them.

    Args:
      encoding: as in ``attend``.
      k_BSKC: keys, not yet rotated.
      v_BSKC: values.
      tokens: their tokens, observed where the scheme depends on content. A scheme that adapts to
        the length (``encoding.reads_length()``) needs tokens with one fixed length:
        ``encoding.tokens(..., length=)``.
      num_heads: number of query heads that attend to these keys.

    Returns:
      Rotated keys and values, and the tokens, which say so to ``attend``: ``tokens.rotated()``.

    Raises:
      ValueError: the scheme adapts to a growing length, so rotated keys would not stay right, or
        must see all tokens at once; or an argument does not fit the others.
    """
    check_keys(k_BSKC, v_BSKC, num_heads)
    scheme, _, side = _sides(encoding, num_heads, k_BSKC.shape[2])
    check_side(scheme, "tokens", tokens, k_BSKC)
    if tokens.stage == "rotated":
        raise ValueError(
            "tokens say that k and v are rotated already: pass keys and values before rotation, "
            "and their tokens as encoding.tokens or tokens.observed gave them"
        )
    stamp = tokens.stamp
    if stamp is not None and not (stamp.resumes and (stamp.fixed or not scheme.reads_length())):
        raise ValueError(
            f"{type(scheme).__name__} rotates all keys again for every token that follows: keep "
            "keys as they are before rotation; or, if it adapts to the length of the sequence, "
            "give all tokens one length, encoding.tokens(..., length=)"
        )
    return *_rotated(scheme, k_BSKC, v_BSKC, tokens, side), tokens.rotated()


def logits(
    encoding: Encoding | HeadShard,
    q_BTHC: jax.Array,
    k_BSKC: jax.Array,
    q_tokens: Tokens,
    k_tokens: Tokens | None = None,
    *,
    x: jax.Array | None = None,
    scale: float | jax.Array | None = None,
) -> jax.Array:
    """Returns the logits that ``attend`` applies mask and softmax to, float32 ``[B, H, T, S]``.

    Use it for your mask, soft cap or softmax, or to look at a scheme. The arguments are those of
    ``attend``.
    """
    q_tokens = _with_input(encoding, q_tokens, k_tokens, x)
    scheme, tile, _, _ = _tile(encoding, q_BTHC, k_BSKC, k_BSKC, q_tokens, k_tokens, scale)
    _in_order(scheme, tile, causal=False, window=None)
    return scheme.score(products(tile.q, tile.k) * tile.scale, tile)


def check_implementation(implementation: str | Implementation | None) -> None:
    """Checks that ``implementation`` is a function, or the name of an implementation."""
    is_name = isinstance(implementation, str) and implementation in IMPLEMENTATIONS
    if implementation is None or callable(implementation) or is_name:
        return
    raise ValueError(f"implementation={implementation!r} must be one of {[*IMPLEMENTATIONS]}")


def choose(encoding: Encoding, tile: Tile, v_BSKC: jax.Array, rule: Rule) -> Implementation:
    """Returns the implementation that ``attend`` runs unless it is told another."""
    B, T, H, _ = tile.q.shape
    S = tile.k.shape[1]
    devices = context_size()
    if devices > 1 and T % devices == S % devices == 0:
        return ring
    if encoding.whole_rows:
        return cpu.dense if B * H * T * S <= MOST_LOGITS else blockwise
    is_plain = rule.causal and rule.in_order and tile.q_tokens.segment_ids is None
    is_plain &= rule.sinks is None and rule.chunk is None
    is_plain &= is_fusable(encoding) and cudnn_takes(tile, v_BSKC, rule)
    if is_plain and is_for_gpu():
        return fused
    return cpu.dense if T * S <= _FEW_LOGITS or T < _FEW_QUERIES else blockwise


def _with_input(encoding, q_tokens, k_tokens, x_BTD):
    """Returns the tokens of self-attention with what the encoding observes in its input."""
    scheme = encoding.encoding if isinstance(encoding, HeadShard) else encoding
    check_one_layer(scheme)
    if x_BTD is None or "observe" not in scheme.hooks():
        return q_tokens
    check_tokens("q_tokens", q_tokens)
    if k_tokens is not None:
        raise ValueError(
            "x= is the input of self-attention; where k_tokens are given, observe all tokens once, "
            "tokens.observed(encoding, x), and pass a part of them as q_tokens"
        )
    return q_tokens.observed(scheme, x_BTD)


def _tile(
    encoding, q_BTHC, k_BSKC, v_BSKC, q_tokens, k_tokens, scale
) -> tuple[Encoding, Tile, jax.Array, Side]:
    """Returns the encoding, one tile with every query and key, the values, and the query side."""
    k_tokens = q_tokens if k_tokens is None else k_tokens
    is_rotated = getattr(k_tokens, "stage", None) == "rotated"
    check_arrays(q_BTHC, k_BSKC, v_BSKC, is_rotated)
    scheme, q_side, k_side = _sides(encoding, q_BTHC.shape[2], k_BSKC.shape[2])
    check_sides(scheme, q_BTHC, k_BSKC, q_tokens, k_tokens)
    scale = q_BTHC.shape[-1] ** -0.5 if scale is None else scale
    scale = jnp.asarray(scale) if isinstance(scale, nnx.Variable) else scale
    check_scale(scale)
    q = scheme.rotate(q_BTHC, q_tokens, q_side)
    if not is_rotated:
        k_BSKC, v_BSKC = _rotated(scheme, k_BSKC, v_BSKC, k_tokens, k_side)
    if k_BSKC.shape[-1] != q.shape[-1]:
        raise ValueError(
            f"rotated queries have {q.shape[-1]} channels and rotated keys {k_BSKC.shape[-1]}: "
            "where tokens say that keys are rotated already, pass keys that rotate_keys returned"
        )
    tile = Tile(
        q=q,
        k=k_BSKC,
        q_tokens=q_tokens,
        k_tokens=k_tokens.having(scheme.of_keys(k_tokens.made)),
        scale=scale,
        heads=q_side.heads,
        num_heads=q_side.num_heads,
    )
    return scheme, tile, v_BSKC, q_side


def _rotated(scheme, k_BSKC, v_BSKC, tokens, side):
    """Returns keys and values rotated, possibly with more channels."""
    k_BSKC = scheme.rotate(k_BSKC, tokens, side)
    return k_BSKC, scheme.rotate_values(v_BSKC, tokens, side)


def _rule(scheme, tile, causal, window, sinks_BTH) -> tuple[Tile, Rule]:
    """Returns the tile, and the rule that says which keys each query sees."""
    check_window(window)
    check_flags(causal=causal)
    in_order = _in_order(scheme, tile, causal, window)
    chunk, window = (window.size, None) if isinstance(window, Chunks) else (None, window)
    if chunk is not None and tile.k_tokens.segment_ids is not None:
        tile, in_order = _counted_by_segment(tile), False
    return tile, Rule(window, causal, in_order, chunk, sinks_BTH)


def _in_order(scheme, tile, causal, window) -> bool:
    """Returns whether queries and keys are the same tokens, in the order they were written in."""
    T, S = tile.q.shape[1], tile.k.shape[1]
    q_index, k_index = tile.q_tokens.index, tile.k_tokens.index
    if q_index is not None or (k_index is None and T == S):
        return q_index is None
    reads = scheme.whole_rows or "observe" in scheme.hooks()
    if reads or causal or window is not None:
        who = type(scheme).__name__ if reads else "a causal mask and a window"
        instead = ", or set causal=False where every query sees every key"
        raise ValueError(
            f"{T} queries and {S} keys do not say in which order they were written, which {who} "
            f"must know: pass tokens.part(start, {T}) as q_tokens and tokens as k_tokens, where "
            "tokens are those of all keys" + ("" if reads or window is not None else instead)
        )
    return False


def _sides(encoding, H: int, K: int) -> tuple[Encoding, Side, Side]:
    """Returns the scheme, and the sides of H query heads and of their K kv heads."""
    heads, k_heads, num_heads = None, None, H
    if isinstance(encoding, HeadShard):
        encoding, heads, num_heads = encoding.encoding, encoding.heads, encoding.num_heads
        num_heads = count_of("num_heads", num_heads)
        check_shard(heads, H, K, num_heads)
    check_one_layer(encoding)
    num_kv_heads = num_heads * K // H
    if heads is not None:
        k_heads = heads[:: H // K] // (num_heads // num_kv_heads)
    q_side = Side(heads, num_heads, num_kv_heads, is_query=True)
    return encoding, q_side, Side(k_heads, num_heads, num_kv_heads, is_query=False)


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
