"""Runs attention under any encoding.

An implementation of attention is a name or a function. The names are

    dense       all logits at once: the reference, and the only one that can be differentiated
                in forward mode, and more than once, under every scheme and on every device;
    blockwise   the logits of one tile at a time, in memory linear in T;
    ring        the same with tokens sharded over the mesh axis "context";
    fused       cuDNN's kernel, Splash attention on a TPU (compiled for it and compared in an
                interpreter, not timed) or XLA's, for schemes that leave the logits alone.
"""

import functools
from collections.abc import Callable

import jax

from posenc_jax.attention import cpu
from posenc_jax.attention.blockwise import MOST_LOGITS, blockwise
from posenc_jax.attention.dense import dense, products, scored, weighted_sums
from posenc_jax.attention.fused import fused, is_usual
from posenc_jax.attention.operands import (
    checked_order,
    rotate_both,
    rule_of,
    sides_of_heads,
    tile_of_tokens,
    tokens_of_sides,
    whole_tile,
)
from posenc_jax.attention.ring import context_size, ring, zigzag
from posenc_jax.attention.rule import Chunks, Mask, Rule, Window
from posenc_jax.checks import check_arrays, check_choice, check_divides, check_side, count_of
from posenc_jax.encoding import Encoding, HeadShard, Tile
from posenc_jax.tokens import Tokens, check_tokens

__all__ = [
    "IMPLEMENTATIONS",
    "Chunks",
    "Implementation",
    "attend",
    "check_implementation",
    "combine",
    "logits",
    "rotate_keys",
    "zigzag",
]


# An implementation gets one tile that holds every query and key, both already rotated.
Implementation = Callable[[Encoding, Tile, jax.Array, Rule], jax.Array]
IMPLEMENTATIONS: dict[str, Implementation] = {
    "dense": dense,
    "blockwise": blockwise,
    "ring": ring,
    "fused": fused,
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
    window: Window | Chunks | None = None,
    mask: Mask | None = None,
    scale: float | jax.Array | None = None,
    sinks: jax.Array | None = None,
    dropout: tuple[float, jax.Array] | None = None,
    implementation: str | Implementation | None = None,
) -> jax.Array:
    """Runs softmax attention under ``encoding``, and returns ``[B, T, H, C]``.

    Args:
      encoding: any scheme; a per-layer scheme must hold the parameters of this layer. For some of
        the model's heads, as inside ``shard_map``, pass ``HeadShard(encoding, heads, num_heads)``.
      q_BTHC, k_BSKC: queries and keys, not yet rotated; query head h reads kv head
        ``h // (H / K)``.
      v_BSKC: values.
      q_tokens: the queries' tokens, from ``encoding.tokens(positions)``.
      k_tokens: the keys' tokens; by default ``q_tokens``. For new queries of a longer text pass a
        part of its tokens: ``attend(e, q, k, v, tokens.part(start, T), tokens)``.
      x: the input ``[B, T, D]`` of self-attention, which queries and keys are projected from.
        Schemes that depend on content (FoX, PaTH, Selective RoPE) read it.
      causal: whether to hide keys whose index is larger than the query's. An encoder and
        cross-attention pass False.
      window: hides keys whose index is smaller than the query's by this much or more; it may be
        traced. ``(left, right)`` shows a query that many keys before and after its own place, None
        for all of them. ``Chunks(size)`` hides the keys of other chunks than the query's.
      mask: bool, True where a query sees a key, beside ``causal``, ``window`` and segments: an
        array that broadcasts to ``[B, H, T, S]``, or a function ``mask(q_index, k_index)`` of int32
        ``[B, 1, T, 1]`` and ``[B, 1, 1, S]`` (B may be 1) that returns one. Blockwise and ring call
        a function on each tile, so that no mask is held as a whole, unless tokens have segments and
        the window is ``Chunks``. Give traced arrays that the function reads as
        ``jax.tree_util.Partial(function, *arrays)``; the function takes them before the indices.
        The mask acts on the softmax alone: schemes that count the tokens between a key and a query
        (CoPE, FoX, PaTH) count hidden tokens too. For documents and padding give segments.
      scale: factor of the products of queries and keys; by default ``1 / sqrt(C)``, with C as it
        was before ``rotate``.
      sinks: ``[H]`` or ``[B, T, H]``, one more logit for each query, without a key or a value, so
        that the query's weights add up to less than 1; -inf has no effect.
      dropout: ``(rate, key)``, for training: the share of the weights that are set to 0, and a
        random key, fresh in each layer and step. The other weights are divided by ``1 - rate``.
      implementation: a name or a function, as the module describes them. By default it is the
        first of these that fits:

        - ring, where the mesh has an axis "context" that divides the tokens;
        - fused, in written order, where cuDNN takes bfloat16 or float16, or Splash bfloat16 or
          float32;
        - dense for few tokens, in the forms of ``cpu.py``;
        - blockwise for many.

        For derivatives in forward mode, as of ``jax.jvp`` and ``jax.hessian``, pass "dense".

    Logits are float32 whatever the inputs are. The output of a query that may see no key is 0.
    Absolute schemes (``learned``, ``sinusoidal``) act in ``encoding.embed`` and not here: where
    ``embed`` was never called, a warning says once that attention has no positions.
    """
    check_implementation(implementation)
    check_choice((True, False), causal=causal)
    scheme, tile, v_BSKC, q_side = whole_tile(
        encoding, q_BTHC, k_BSKC, v_BSKC, q_tokens, k_tokens, x, scale, bool(causal)
    )
    tile, rule = rule_of(scheme, tile, bool(causal), window, mask, sinks, dropout)
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
      Rotated keys and values, and ``tokens.rotated()``, which tells ``attend`` that they are.

    Raises:
      ValueError: the scheme adapts to a growing length, so rotated keys would not stay right, or
        must see all tokens at once; or an argument does not fit the others.
    """
    check_arrays(k=k_BSKC, v=v_BSKC)
    check_divides(num_kv_heads=k_BSKC.shape[2], num_heads=count_of("num_heads", num_heads))
    scheme, _, side = sides_of_heads(encoding, num_heads, k_BSKC.shape[2])
    check_tokens("tokens", tokens, scheme)
    check_side(scheme, "tokens", tokens, k_BSKC)
    stamp = tokens.stamp
    if stamp.stage == "rotated":
        raise ValueError(
            "tokens say that k and v are rotated already: pass keys and values before rotation, "
            "and their tokens as encoding.tokens or tokens.observed gave them"
        )
    if not (stamp.resumes and (stamp.fixed or not scheme.reads_length())):
        at_fault = [part for part in scheme.parts() if part.reads_length()] or [scheme]
        rule = getattr(at_fault[-1], "frequencies", None)  # RoPE is one class under every rule.
        who = type(at_fault[-1]).__name__ + (f" with {type(rule).__name__}" if rule else "")
        raise ValueError(
            f"{who} rotates all keys again for every token that follows: keep keys as they are "
            "before rotation; or, if it adapts to the length of the sequence, give all tokens one "
            "length, encoding.tokens(..., length=)"
        )
    return *rotate_both(scheme, k_BSKC, v_BSKC, tokens, side), tokens.rotated()


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

    Use it for a softmax of your own, or to look at a scheme. ``combine`` sums the values by the
    weights that you make of the logits. The arguments are as in ``attend``.
    """
    scheme, tile, _, _ = whole_tile(encoding, q_BTHC, k_BSKC, k_BSKC, q_tokens, k_tokens, x, scale)
    checked_order(scheme, tile, causal=False, by_index=False)
    return scored(scheme, products(tile.q, tile.k), tile)


def combine(
    encoding: Encoding | HeadShard,
    weights_BHTS: jax.Array,
    v_BSKC: jax.Array,
    q_tokens: Tokens,
    k_tokens: Tokens | None = None,
    *,
    x: jax.Array | None = None,
) -> jax.Array:
    """Sums the values by weights of your own as ``attend`` would, and returns ``[B, T, H, C]``.

    Some schemes rotate or mix values (PRoPE, ValueRoPE, KV shift) or add to their sum (Shaw), so a
    plain product of weights and values is wrong for them. The weights are what your softmax makes
    of ``logits``; the other arguments are as in ``attend``.
    """
    check_arrays(weights=weights_BHTS, v=v_BSKC)
    q_BTHS = weights_BHTS.swapaxes(1, 2)
    scheme, q_side, k_side = sides_of_heads(encoding, q_BTHS.shape[2], v_BSKC.shape[2])
    q_tokens, k_tokens = tokens_of_sides(scheme, q_BTHS, v_BSKC, q_tokens, k_tokens, x)
    if k_tokens.stamp.stage != "rotated":
        v_BSKC = scheme.rotate_values(v_BSKC, k_tokens, k_side)
    k_tokens = k_tokens.having(scheme.of_keys(k_tokens.made))
    tile = tile_of_tokens(q_tokens, k_tokens, q_side.heads, q_side.num_heads)
    out_BTHC = scheme.mix(weighted_sums(weights_BHTS, v_BSKC), weights_BHTS, tile)
    return scheme.rotate_back(out_BTHC.astype(v_BSKC.dtype), q_tokens, q_side)


def check_implementation(implementation: str | Implementation | None) -> None:
    """Checks that ``implementation`` is a function, or the name of an implementation."""
    if not callable(implementation):
        check_choice((*IMPLEMENTATIONS, None), implementation=implementation)


def choose(encoding: Encoding, tile: Tile, v_BSKC: jax.Array, rule: Rule) -> Implementation:
    """Returns the implementation that ``attend`` runs by default."""
    B, T, H, _ = tile.q.shape
    S = tile.k.shape[1]
    devices = context_size()
    if devices > 1 and T % devices == S % devices == 0:
        return ring
    if encoding.whole_rows:
        is_known = isinstance(B * T * S, int)  # and no symbol of jax.export
        return cpu.dense if not is_known or B * H * T * S <= MOST_LOGITS else blockwise
    if is_usual(encoding, tile, v_BSKC, rule):
        return fused
    # Symbols of jax.export cannot be compared, and whole rows suit all lengths.
    is_few = not isinstance(T * S, int) or T * S <= _FEW_LOGITS or T < _FEW_QUERIES
    usual = cpu.dense if is_few else blockwise
    parts = cpu.parts_of(encoding, tile, rule, is_few)
    if parts == (1, 1):
        return usual
    return functools.partial(cpu.in_parts_or, parts, usual)
