"""Attention over any encoding, through one door."""

import jax
import jax.numpy as jnp

from posenc_jax.attention.blockwise import blockwise
from posenc_jax.attention.dense import dense, tile_logits
from posenc_jax.attention.ring import context_size, ring, zigzag
from posenc_jax.encoding import Encoding, Tile, Tokens

__all__ = ["IMPLEMENTATIONS", "attend", "logits", "zigzag"]

IMPLEMENTATIONS = ("dense", "blockwise", "ring")

# Up to so many logits in a head, and for so few queries, one product of everything is faster.
_FEW_LOGITS, _FEW_QUERIES = 256 * 256, 16


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
      implementation: "dense" holds all logits at once, "blockwise" those of one tile,
        and "ring" does the same with tokens sharded over the mesh axis "context". Default: dense
        for schemes that need whole rows; else ring, if the mesh has such an axis and it divides
        the tokens; else dense for few tokens, and blockwise for many.
      block: queries, and keys, in a tile. Default: by their number.

    Logits are float32 whatever the inputs are. A query that may see no key gives zeros.
    """
    k_tokens = q_tokens if k_tokens is None else k_tokens
    _check_shapes(q_BTHC, k_BSKC, v_BSKC, q_tokens, k_tokens)
    if window is not None and window < 1:
        raise ValueError(f"window={window} must be at least 1, or None to see every key")
    tile = _tile(encoding, q_BTHC, k_BSKC, q_tokens, k_tokens, scale, heads, num_heads)
    segment_ids = q_tokens.segment_ids, k_tokens.segment_ids
    chosen = _choose(implementation, encoding, q_BTHC.shape[1], k_BSKC.shape[1])
    if chosen == "dense":
        return dense(encoding, tile, v_BSKC, segment_ids, causal=causal, window=window)
    run = ring if chosen == "ring" else blockwise
    return run(encoding, tile, v_BSKC, segment_ids, causal=causal, window=window, block=block)


def _choose(implementation, encoding, T, S) -> str:
    if implementation is None:
        if encoding.whole_rows:
            return "dense"
        devices = context_size()
        if devices > 1 and T % devices == S % devices == 0:
            return "ring"
        return "dense" if T * S <= _FEW_LOGITS or T < _FEW_QUERIES else "blockwise"
    if implementation not in IMPLEMENTATIONS:
        raise ValueError(f"implementation={implementation!r} must be one of {IMPLEMENTATIONS}")
    return implementation


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
