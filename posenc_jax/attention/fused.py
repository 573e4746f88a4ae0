"""Attention in one kernel of somebody else's, for schemes that change queries and keys only.

``jax.nn.dot_product_attention``: cuDNN's flash attention on an NVIDIA GPU where it takes the
operands, and XLA's own everywhere else, which holds all logits like ``dense``.
"""

import jax
import jax.numpy as jnp

from posenc_jax.attention.dense import visible

_WIDEST_HEAD = 128  # of cuDNN on every GPU it supports


def fused(encoding, tile, v_BSKC, segment_ids, *, causal: bool, in_order: bool, window: int | None):
    """Softmax attention over a tile that holds every query and key; see ``attend``.

    Raises:
      ValueError: the encoding changes logits or mixes values of positions in.
    """
    if not is_fusable(encoding, tile, v_BSKC):
        raise ValueError(
            f'implementation="fused" cannot run {type(encoding).__name__}, which changes the '
            'logits or the output; use "dense"'
        )
    options = dict(causal=causal, in_order=in_order, window=window)
    on_gpu = jax.default_backend() == "gpu"
    runs = on_gpu and cudnn_takes(tile, v_BSKC)
    return by_library("cudnn" if runs else "xla", tile, v_BSKC, segment_ids, **options)


def is_fusable(encoding, tile, v_BSKC) -> bool:
    """Whether ``score`` and ``mix`` return what they are given, wrapped schemes' included.

    Seen in their program, because a wrapper overrides both hooks to hand them on.
    """
    (B, T, H, _), S = tile.q.shape, tile.k.shape[1]
    logits_BHTS = jax.ShapeDtypeStruct((B, H, T, S), jnp.float32)
    out_BTHC = jax.ShapeDtypeStruct((B, T, H, v_BSKC.shape[-1]), jnp.float32)
    score = jax.make_jaxpr(encoding.score)(logits_BHTS, tile).jaxpr
    mix = jax.make_jaxpr(encoding.mix)(out_BTHC, logits_BHTS, tile).jaxpr
    return score.outvars == score.invars[:1] and mix.outvars == mix.invars[:1]


def cudnn_takes(tile, v_BSKC) -> bool:
    """Whether cuDNN's flash attention runs these operands, forwards and backwards."""
    half = all(x.dtype in (jnp.bfloat16, jnp.float16) for x in (tile.q, tile.k, v_BSKC))
    even = tile.q.shape[1] % 2 == 0 and tile.k.shape[1] % 2 == 0
    known_scale = not isinstance(tile.scale, jax.Array)
    return half and even and known_scale and _width(tile, v_BSKC) <= _WIDEST_HEAD


def by_library(implementation, tile, v_BSKC, segment_ids, *, causal, in_order, window):
    """``jax.nn.dot_product_attention`` of a tile, ``implementation`` "xla" or "cudnn"."""
    if causal and in_order:
        # Written order: the library counts as the index does, and every query sees itself.
        seen = visible(tile, segment_ids, causal=False, window=None)
        before = None if window is None else (window - 1, 0)
    else:
        seen, before = visible(tile, segment_ids, causal, window), None

    # The library wants one type and one width, and cuDNN a multiple of 8; zeros add nothing.
    dtype = jnp.result_type(tile.q, tile.k, v_BSKC)
    width = _width(tile, v_BSKC)
    q, k, v = (_widened(x.astype(dtype), width) for x in (tile.q, tile.k, v_BSKC))
    (B, T), S = q.shape[:2], k.shape[1]
    if seen is not None:
        seen = jnp.broadcast_to(seen, (B, 1, T, S))
    out_BTHC = jax.nn.dot_product_attention(
        *(q, k, v),
        mask=seen,
        scale=tile.scale,
        is_causal=causal and in_order,
        local_window_size=before,
        implementation=implementation,
    )
    out_BTHC = out_BTHC[..., : v_BSKC.shape[-1]].astype(v_BSKC.dtype)
    if seen is None or (causal and in_order):
        return out_BTHC
    # The library gives a row that sees nothing the mean of all values.
    return jnp.where(seen.any(-1).swapaxes(1, 2)[..., None], out_BTHC, 0)


def _width(tile, v_BSKC):
    return -(-max(tile.q.shape[-1], v_BSKC.shape[-1]) // 8) * 8


def _widened(x_BTHC, width):
    return jnp.pad(x_BTHC, ((0, 0), (0, 0), (0, 0), (0, width - x_BTHC.shape[-1])))
