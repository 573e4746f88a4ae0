"""Attends in one kernel that JAX provides, for schemes that do not change logits, or cap them.

The kernel is cuDNN's flash attention on an NVIDIA GPU and Splash attention on a TPU, each where it
takes the operands. It is XLA's attention everywhere else, which holds all logits like ``dense``.
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp

from posenc_jax.attention.rule import Rule
from posenc_jax.attention.splash import splash, splash_takes
from posenc_jax.encoding import Encoding
from posenc_jax.pairs import Pairs

_WIDEST_HEAD = 128  # cuDNN's limit on every GPU it supports


def fused(encoding: Encoding, tile: Pairs, v_BSKC: jax.Array, rule: Rule) -> jax.Array:
    """Attends in one kernel over all queries and keys; see ``attend``.

    Raises:
      ValueError: the encoding overrides ``score`` or ``mix``, or there is dropout; Splash takes a
        soft cap, and a sink for each head.
    """
    on_splash = platform() == "tpu" and splash_takes(tile, v_BSKC, rule)
    has_sinks = rule.sinks is not None and not on_splash
    if not is_fusable(encoding, on_splash) or has_sinks or rule.dropout is not None:
        raise ValueError(
            'implementation="fused" runs a kernel that leaves logits and outputs alone and has no '
            "dropout, and a soft cap or sinks for each head only on a TPU, so it cannot run this "
            f'{type(encoding).__name__}; use "blockwise"'
        )
    if on_splash:
        return splash(tile, v_BSKC, rule, encoding.soft_cap)
    on_cudnn = platform() == "gpu" and cudnn_takes(tile, v_BSKC, rule)
    return by_library("cudnn" if on_cudnn else "xla", tile, v_BSKC, rule)


def is_usual(encoding: Encoding, tile: Pairs, v_BSKC: jax.Array, rule: Rule) -> bool:
    """Returns whether ``attend`` runs ``fused`` by default: in written order, and in a kernel."""
    on_tpu = platform() == "tpu"
    if not (rule.causal and rule.in_order and is_fusable(encoding, on_tpu)):
        return False
    if on_tpu:
        return splash_takes(tile, v_BSKC, rule)
    # For cuDNN segments would be a mask, made as a whole.
    is_plain = rule.by_order and tile.q_tokens.segment_ids is None
    is_plain &= rule.sinks is None and rule.dropout is None
    return is_plain and platform() == "gpu" and cudnn_takes(tile, v_BSKC, rule)


def is_fusable(encoding: Encoding, can_cap: bool) -> bool:
    """Returns whether a kernel that leaves logits alone, or can cap them, computes the scheme."""
    is_capped = can_cap and encoding.soft_cap is not None
    return not encoding.overrides("mix") and (is_capped or not encoding.overrides("score"))


def cudnn_takes(tile: Pairs, v_BSKC: jax.Array, rule: Rule) -> bool:
    """Returns whether cuDNN's flash attention runs these operands, forwards and backwards."""
    half = all(x.dtype in (jnp.bfloat16, jnp.float16) for x in (tile.q, tile.k, v_BSKC))
    even = tile.q.shape[1] % 2 == 0 and tile.k.shape[1] % 2 == 0
    known = not any(isinstance(x, jax.Array) for x in (tile.scale, rule.window))
    return half and even and known and rule.chunk is None and _width(tile, v_BSKC) <= _WIDEST_HEAD


def platform() -> str:
    """Returns the platform that the program that is being traced is for, such as "gpu" or "tpu".

    The mesh comes first, because a machine may compile for devices that it does not have. The
    choice cannot wait for lowering, because JAX looks for cuDNN while it traces.
    """
    device = jax.sharding.get_abstract_mesh().abstract_device
    return jax.default_backend() if device is None else device.platform


def by_library(implementation: Literal["xla", "cudnn"], tile, v_BSKC, rule: Rule) -> jax.Array:
    """Calls ``jax.nn.dot_product_attention`` on a tile, ``implementation`` "xla" or "cudnn"."""
    by_order = rule.by_order and not isinstance(rule.window, jax.Array)
    visible: Any
    before: Any
    if by_order:
        # In written order the library's row numbers are the index, and every query sees itself.
        visible = Rule(None, causal=False, in_order=True).visible(tile.q_tokens, tile.k_tokens)
        before = None if rule.window is None else (rule.window - 1, 0)
    else:
        visible, before = rule.visible(tile.q_tokens, tile.k_tokens), None

    # The library needs one type and one width, and cuDNN a multiple of 8; zeros add nothing.
    dtype = jnp.result_type(tile.q, tile.k, v_BSKC)
    width = _width(tile, v_BSKC)
    q, k, v = (
        jnp.pad(x.astype(dtype), ((0, 0), (0, 0), (0, 0), (0, width - x.shape[-1])))
        for x in (tile.q, tile.k, v_BSKC)
    )
    (B, T), S = q.shape[:2], k.shape[1]
    if visible is not None:
        visible = jnp.broadcast_to(visible, (B, visible.shape[1], T, S))
    out_BTHC = jax.nn.dot_product_attention(
        q,
        k,
        v,
        mask=visible,
        scale=tile.scale,
        is_causal=by_order,
        local_window_size=before,
        implementation=implementation,
    )
    out_BTHC = out_BTHC[..., : v_BSKC.shape[-1]].astype(v_BSKC.dtype)
    if visible is None or by_order:
        return out_BTHC
    # The library gives a row that sees nothing the mean of all values.
    return jnp.where(visible.any(-1).swapaxes(1, 2)[..., None], out_BTHC, 0)


def _width(tile, v_BSKC):
    return -(-max(tile.q.shape[-1], v_BSKC.shape[-1]) // 8) * 8
