"""Attention over any encoding, through one door."""

from typing import Any

import jax
import jax.numpy as jnp

from posenc_jax.attention.blockwise import MOST_LOGITS, blockwise
from posenc_jax.attention.dense import dense, tile_logits
from posenc_jax.attention.fused import cudnn_takes, fused, is_fusable
from posenc_jax.attention.pallas import pallas
from posenc_jax.attention.ring import context_size, ring, zigzag
from posenc_jax.encoding import Encoding, Tile, Tokens

__all__ = ["IMPLEMENTATIONS", "attend", "check_implementation", "logits", "zigzag"]

IMPLEMENTATIONS = ("dense", "blockwise", "ring", "fused", "pallas")

# Up to so many logits in a head, and for so few queries, one product of everything is faster; see
# docs/performance.md.
_FEW_LOGITS, _FEW_QUERIES = 2**19, 16


def attend(
    encoding: Encoding,
    q_BTHC,
    k_BSKC,
    v_BSKC,
    q_tokens: Tokens,
    k_tokens: Tokens | None = None,
    *,
    causal: bool = True,
    window: int | None = None,
    scale: float | None = None,
    heads=None,
    num_heads: int | None = None,
    implementation: str | None = None,
    block: int | None = None,
) -> jax.Array:
    """Softmax attention under ``encoding``, ``[B, T, H, C]``.

    Args:
      encoding: any scheme; a per-layer one must be this layer's own.
      q_BTHC: queries, not yet rotated.
      k_BSKC: keys, not yet rotated; query head h reads kv head ``h // (H / K)``.
      v_BSKC: values.
      q_tokens: positions, order and segments of the queries, from ``Tokens.of(encoding, ...)``.
      k_tokens: the same of the keys. Default: the keys are the queries' own tokens.
      causal: hide keys whose index is larger than the query's.
      window: hide keys whose index is this much smaller than the query's, or more.
      scale: multiplies the product of queries and keys; default ``1 / sqrt(C)``, with C as it was
        before ``rotate``.
      heads: int ``[H]`` global numbers of the query heads given here, where they are only some
        of the model's ``num_heads`` (inside ``shard_map``). Default: all of them.
      num_heads: how many query heads the whole model has. Default: H.
      implementation: one of

        - "dense": all logits at once, the reference;
        - "blockwise": those of one tile at a time, memory linear in T;
        - "ring": the same with tokens sharded over the mesh axis "context";
        - "fused": cuDNN's kernel or XLA's, for schemes that leave the logits alone;
        - "pallas": our kernel for GPU and TPU, not measured yet.

        Default: ring, if there is such an axis and it divides the tokens; else fused, where cuDNN
        takes bfloat16 or float16 in written order; else dense for few tokens, and blockwise for
        many.
      block: queries, and keys, in a tile of blockwise and ring. Default: by their number.

    Logits are float32 whatever the inputs are. A query that may see no key gives zeros.
    """
    in_order = (k_tokens is None or k_tokens is q_tokens) and q_tokens.index is None
    k_tokens = q_tokens if k_tokens is None else k_tokens
    _check_shapes(q_BTHC, k_BSKC, v_BSKC, q_tokens, k_tokens)
    for name, value in (("window", window), ("block", block)):
        if value is not None and value < 1:
            raise ValueError(f"{name}={value} must be at least 1, or None")
    tile = _tile(encoding, q_BTHC, k_BSKC, q_tokens, k_tokens, scale, heads, num_heads)
    segment_ids = q_tokens.segment_ids, k_tokens.segment_ids
    check_implementation(implementation)
    if implementation is None:
        is_plain = causal and in_order and q_tokens.segment_ids is None
        implementation = _choose(encoding, tile, v_BSKC, is_plain)
    operands = encoding, tile, v_BSKC, segment_ids
    rule: dict[str, Any] = dict(causal=causal, window=window)
    match implementation:
        case "dense":
            return dense(*operands, **rule)
        case "blockwise":
            return blockwise(*operands, **rule, block=block)
        case "ring":
            return ring(*operands, **rule, block=block)
        case "fused":
            return fused(*operands, **rule, in_order=in_order)
        case _:
            return pallas(*operands, **rule, in_order=in_order)


def check_implementation(implementation: str | None) -> None:
    """Refuses what is no name of an implementation."""
    if implementation is not None and implementation not in IMPLEMENTATIONS:
        raise ValueError(f"implementation={implementation!r} must be one of {IMPLEMENTATIONS}")


def _choose(encoding, tile, v_BSKC, is_plain: bool) -> str:
    """``is_plain``: causal over tokens in written order, without segments."""
    B, T, H, _ = tile.q.shape
    S = tile.k.shape[1]
    devices = context_size()
    if devices > 1 and T % devices == S % devices == 0:
        return "ring"
    if encoding.whole_rows:
        return "dense" if B * H * T * S <= MOST_LOGITS else "blockwise"
    on_gpu = jax.default_backend() == "gpu"
    if on_gpu and is_plain and cudnn_takes(tile, v_BSKC) and is_fusable(encoding, tile, v_BSKC):
        return "fused"
    return "dense" if T * S <= _FEW_LOGITS or T < _FEW_QUERIES else "blockwise"


def logits(
    encoding: Encoding,
    q_BTHC,
    k_BSKC,
    q_tokens: Tokens,
    k_tokens: Tokens | None = None,
    *,
    scale: float | None = None,
) -> jax.Array:
    """What the softmax of ``attend`` sees, float32 ``[B, H, T, S]``, but for the mask.

    For looking at a scheme; see ``attend`` for the arguments.
    """
    k_tokens = q_tokens if k_tokens is None else k_tokens
    _check_shapes(q_BTHC, k_BSKC, k_BSKC, q_tokens, k_tokens)
    return tile_logits(encoding, _tile(encoding, q_BTHC, k_BSKC, q_tokens, k_tokens, scale))


def _tile(encoding, q_BTHC, k_BSKC, q_tokens, k_tokens, scale, heads=None, num_heads=None):
    return Tile(
        q=encoding.rotate(q_BTHC, q_tokens.prepared, is_query=True),
        k=encoding.rotate(k_BSKC, k_tokens.prepared, is_query=False),
        q_positions=q_tokens.positions,
        k_positions=k_tokens.positions,
        q_index=q_tokens.order(),
        k_index=k_tokens.order(),
        q_prepared=q_tokens.prepared,
        k_prepared=k_tokens.prepared,
        scale=q_BTHC.shape[-1] ** -0.5 if scale is None else scale,
        heads=jnp.arange(q_BTHC.shape[2]) if heads is None else heads,
        num_heads=q_BTHC.shape[2] if num_heads is None else num_heads,
    )


def _check_shapes(q_BTHC, k_BSKC, v_BSKC, q_tokens, k_tokens):
    B, T, H, C = q_BTHC.shape
    _, S, K, _ = k_BSKC.shape
    if k_BSKC.shape != (B, S, K, C) or v_BSKC.shape[:3] != (B, S, K) or H % K:
        raise ValueError(
            f"q {q_BTHC.shape}, k {k_BSKC.shape} and v {v_BSKC.shape} do not fit: q must be "
            "[B, T, H, C], k and v [B, S, K, C] with H a multiple of K"
        )
    for name, tokens, length in (("q_tokens", q_tokens, T), ("k_tokens", k_tokens, S)):
        if tokens.positions.shape[-2:] not in ((B, length), (1, length)):
            raise ValueError(
                f"{name} has positions of shape {tokens.positions.shape}, but attention is over "
                f"{length} tokens in a batch of {B}: give [{B}, {length}] or [1, {length}]"
            )
    if (q_tokens.segment_ids is None) != (k_tokens.segment_ids is None):
        raise ValueError("segment_ids must be given for both queries and keys, or for neither")
