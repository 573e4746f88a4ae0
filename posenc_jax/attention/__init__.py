"""Runs attention under any encoding.

An implementation of attention is a name or a function. The names are

    dense       all logits at once: the reference, and the only one that can be differentiated
                in forward mode, and more than once, under every scheme and on every device;
    blockwise   the logits of one tile at a time, in memory linear in T;
    gather      the same with tokens sharded over the mesh axis "context": keys and values of all
                devices are gathered on each;
    ulysses     the same, where each device gets all tokens of some heads;
    ring        the same, where devices pass keys and values around;
    fused       cuDNN's kernel, Splash attention on a TPU (compiled for it and compared in an
                interpreter, not timed) or XLA's, for schemes that leave the logits alone.
"""

import functools
from collections.abc import Callable

import jax

from posenc_jax.attention import cpu
from posenc_jax.attention.blockwise import MOST_LOGITS, blockwise
from posenc_jax.attention.context import (
    gather,
    gathered_bytes,
    lies_over_context,
    ring,
    ulysses,
    zigzag,
)
from posenc_jax.attention.dense import dense, products, scored, weighted_sums
from posenc_jax.attention.fused import fused, is_usual
from posenc_jax.attention.operands import all_pairs, both_sides, checked_order, rule_of
from posenc_jax.attention.rule import Chunks, Mask, Rule, Window
from posenc_jax.checks import check_arrays, check_choice
from posenc_jax.encoding import Encoding, Here
from posenc_jax.keys import Keys
from posenc_jax.pairs import Pairs

__all__ = [
    "IMPLEMENTATIONS",
    "Chunks",
    "Implementation",
    "attend",
    "check_implementation",
    "combine",
    "logits",
    "zigzag",
]


# An implementation gets the pairs of all queries and keys, both rotated, and the rotated values.
Implementation = Callable[[Encoding, Pairs, jax.Array, Rule], jax.Array]
IMPLEMENTATIONS: dict[str, Implementation] = {
    "dense": dense,
    "blockwise": blockwise,
    "gather": gather,
    "ulysses": ulysses,
    "ring": ring,
    "fused": fused,
}

# With at most this many logits in a head, or this few queries, a single product is faster; see
# docs/performance.md.
_FEW_LOGITS, _FEW_QUERIES = 2**19, 16

# Over the mesh axis "context", keys and values are gathered up to this many bytes a device. MaxText
# measured a step on 64 chips of v5p (its issue 4893): 1.09 s with gathering and 1.42 s with a ring
# at 64k tokens, and 9.71 and 10.78 s at 256k. Beyond, a ring is chosen, which holds no more keys
# than a device has; their float32 gradients take two to four times as much as keys and values.
MOST_GATHERED = 2**30


def attend(
    here: Here,
    q_BTHC: jax.Array,
    k_BSKC: jax.Array | Keys,
    v_BSKC: jax.Array | None = None,
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
    """Runs softmax attention under an encoding, and returns ``[B, T, H, C]``.

    Args:
      here: the encoding at the tokens of the queries, ``encoding.at(positions)``. A per-layer
        scheme must hold the parameters of this layer: ``here.of_layer(i)``. For some of the model's
        heads, as inside ``shard_map``, pass ``here.of_heads(heads, num_heads)``.
      q_BTHC: queries, not yet rotated; query head h reads kv head ``h // (H / K)``.
      k_BSKC: keys of the same tokens, not yet rotated. Or Keys of any tokens, which hold values
        too: for new queries of a longer text ``attend(here.part(start, T), q, here.keys(k, v))``,
        and for cross-attention the Keys of the other tokens, with ``causal=False``.
      v_BSKC: values of the same tokens.
      x: the input ``[B, T, D]`` of self-attention, which queries and keys are projected from.
        Schemes that depend on content (FoX, PaTH, Selective RoPE) read it.
      causal: whether to hide keys whose index is larger than the query's. An encoder and
        cross-attention pass False.
      window: hides keys whose index is smaller than the query's by this much or more; it may be
        traced. ``(left, right)`` shows a query that many keys before and after its own place, None
        for all of them. ``Chunks(size)`` hides the keys of other chunks than the query's.
      mask: bool, True where a query sees a key, beside ``causal``, ``window`` and segments: an
        array that broadcasts to ``[B, H, T, S]``, or a function ``mask(q_index, k_index)`` of int32
        ``[B, 1, T, 1]`` and ``[B, 1, 1, S]`` (B may be 1) that returns one. Blockwise, on one
        device or several, calls a function on each tile, so that no mask is held as a whole, unless
        tokens have segments and the window is ``Chunks``. Give traced arrays that the function
        reads as ``jax.tree_util.Partial(function, *arrays)``; the function takes them before the
        indices.
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

        - gather, where the mesh has an axis "context" that divides the tokens, or ring where all
          keys and values of a layer take more than 1 GiB a device;
        - fused, in written order, where cuDNN takes bfloat16 or float16, or Splash bfloat16 or
          float32;
        - dense for few tokens, in the forms of ``cpu.py``;
        - blockwise for many.

        For derivatives in forward mode, as of ``jax.jvp`` and ``jax.hessian``, pass "dense".

    Logits are float32 whatever the inputs are. The output of a query that may see no key is 0.
    Absolute schemes (``learned``, ``sinusoidal``) act in ``here.embed`` and not in attention: where
    ``embed`` was never called, a warning says once that attention has no positions.
    """
    check_implementation(implementation)
    check_choice((True, False), causal=causal)
    here, pairs, v_BSKC = all_pairs(here, q_BTHC, k_BSKC, v_BSKC, x, scale, bool(causal))
    scheme = here.encoding
    pairs, rule = rule_of(scheme, pairs, bool(causal), window, mask, sinks, dropout)
    if implementation is None:
        implementation = choose(scheme, pairs, v_BSKC, rule)
    run = implementation if callable(implementation) else IMPLEMENTATIONS[implementation]
    side = here.side(q_BTHC.shape[2], is_query=True)
    return scheme.rotate_back(run(scheme, pairs, v_BSKC, rule), here.tokens, side)


def logits(
    here: Here,
    q_BTHC: jax.Array,
    k_BSKC: jax.Array | Keys,
    *,
    x: jax.Array | None = None,
    scale: float | jax.Array | None = None,
) -> jax.Array:
    """Returns the logits that ``attend`` applies mask and softmax to, float32 ``[B, H, T, S]``.

    Use it for a softmax of your own, or to look at a scheme. ``combine`` sums the values by the
    weights that you make of the logits. The arguments are as in ``attend``.
    """
    v_BSKC = None if isinstance(k_BSKC, Keys) else k_BSKC
    here, pairs, _ = all_pairs(here, q_BTHC, k_BSKC, v_BSKC, x, scale)
    checked_order(here.encoding, pairs, causal=False, by_index=False)
    return scored(here.encoding, products(pairs.q, pairs.k), pairs)


def combine(
    here: Here, weights_BHTS: jax.Array, v_BSKC: jax.Array | Keys, *, x: jax.Array | None = None
) -> jax.Array:
    """Sums the values by weights of your own as ``attend`` would, and returns ``[B, T, H, C]``.

    Some schemes rotate or mix values (PRoPE, ValueRoPE, KV shift) or add to their sum (Shaw), so a
    plain product of weights and values is wrong for them. The weights are what your softmax makes
    of ``logits``; the values are those of the same tokens, or Keys; the other arguments are as in
    ``attend``.
    """
    keys, values = (v_BSKC, None) if isinstance(v_BSKC, Keys) else (None, v_BSKC)
    check_arrays(weights=weights_BHTS, v=values if keys is None else keys.v)
    here, keys = both_sides(here, "weights", weights_BHTS.swapaxes(1, 2), keys, values, x)
    side = here.side(weights_BHTS.shape[1], is_query=True)
    pairs = Pairs.of_tokens(here.tokens, keys.tokens, side)
    out_BTHC = here.encoding.mix(weighted_sums(weights_BHTS, keys.v), weights_BHTS, pairs)
    return here.encoding.rotate_back(out_BTHC.astype(keys.v.dtype), here.tokens, side)


def check_implementation(implementation: str | Implementation | None) -> None:
    """Checks that ``implementation`` is a function, or the name of an implementation."""
    if not callable(implementation):
        check_choice((*IMPLEMENTATIONS, None), implementation=implementation)


def choose(encoding: Encoding, pairs: Pairs, v_BSKC: jax.Array, rule: Rule) -> Implementation:
    """Returns the implementation that ``attend`` runs by default."""
    B, T, H, _ = pairs.q.shape
    S = pairs.k.shape[1]
    if lies_over_context(pairs):
        fits = encoding.whole_rows or gathered_bytes(pairs, v_BSKC) <= MOST_GATHERED
        return gather if fits else ring
    if encoding.whole_rows:
        is_known = isinstance(B * T * S, int)  # and no symbol of jax.export
        return cpu.dense if not is_known or B * H * T * S <= MOST_LOGITS else blockwise
    if is_usual(encoding, pairs, v_BSKC, rule):
        return fused
    # Symbols of jax.export cannot be compared, and whole rows suit all lengths.
    is_few = not isinstance(T * S, int) or T * S <= _FEW_LOGITS or T < _FEW_QUERIES
    usual = cpu.dense if is_few else blockwise
    parts = cpu.parts_of(encoding, pairs, rule, is_few)
    if parts == (1, 1):
        return usual
    return functools.partial(cpu.in_parts_or, parts, usual)
