"""Runs flash attention (2205.14135) in Pallas kernels, with the encoding's hooks on each tile.

One source serves two compilers, Triton's on a GPU and Mosaic's on a TPU. On a CPU the kernels are
interpreted, slowly, for tests. ``score`` and ``mix`` are traced once and cut in two
(``program.py``): their work on parameters alone runs ahead, the rest in the kernels, where the
gradients of the parameters are made too, a tile at a time. Memory is linear in the length; on a
TPU the keys and values of one head must fit in VMEM.

These kernels are never a default; only ``implementation="pallas"`` selects them. They have not run
on a GPU or TPU, and their speed is unknown. Tests interpret them on a CPU and compare the results;
JAX lowers them for Triton and for Mosaic; and the TPU's compiler, which needs no chip, accepts them
(``benchmarks/tpu_check.py``). NVIDIA's compiler has not been tried.

The kernels do not support CoPE, PaTH, GRAPE-AP and stick-breaking, which need whole rows; DAPE,
which needs all heads in one tile; Wall, which takes channels one by one; tables of more than 128
rows (DeBERTa's and Inkling's as published); and networks of hundreds of units (Swin V2's as
published). For Triton, JAX does not lower Shaw (its table has an odd number of rows), DeBERTa
(``round``), FIRE and Swin V2 (they take their units one by one), dual chunk attention (the channels
of three rotations are no power of 2) and the gradients of ReRoPE, Leaky ReRoPE and Self-Extend (two
rotations are concatenated).
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from posenc_jax.attention import sinks as sink
from posenc_jax.attention.pallas.hooks import Hooks, used_leaves
from posenc_jax.attention.pallas.kernels import Kernels
from posenc_jax.attention.pallas.operands import of_heads, of_tokens, widened
from posenc_jax.attention.rule import Rule
from posenc_jax.encoding import Encoding, Tile

# Rows and columns of a tile, on each platform that a program may be lowered for.
_SIZES = {"cpu": 16, "cuda": 64, "tpu": 128}


def pallas(encoding: Encoding, tile: Tile, v_BSKC: jax.Array, rule: Rule) -> jax.Array:
    """Attends in our kernels over all queries and keys; see ``attend``.

    Raises:
      ValueError: ``score`` needs whole rows, all heads in one tile, a large table or thousands of
        operations; or the window is traced, ``Chunks`` or a pair; or there is a mask or dropout; or
        types have 64 bits.
    """
    unfit = {
        f"{type(encoding).__name__}, which needs whole rows of logits": encoding.whole_rows,
        "a window that is an array": isinstance(rule.window, jax.Array),
        "a window to both sides": rule.after is not None,
        "Chunks": rule.chunk is not None,
        "a mask": rule.mask is not None,
        "dropout": rule.dropout is not None,
        "any scheme under jax_enable_x64": jnp.result_type(float) == jnp.float64,
    }
    if reasons := [reason for reason, is_given in unfit.items() if is_given]:
        raise ValueError(
            f'implementation="pallas" cannot run {", ".join(reasons)}; use "blockwise"'
        )
    sinks_BHT = sink.by_row(rule.sinks, tile.q)
    # Kernels are made for the rest of the rule, which is known while a program is traced.
    rule = dataclasses.replace(rule, sinks=None)
    runs = {
        platform: functools.partial(_attend, rule=rule, size=size, platform=platform)
        for platform, size in _SIZES.items()
    }
    return jax.lax.platform_dependent(encoding, tile, v_BSKC, sinks_BHT, **runs)


def _attend(encoding, tile, v_BSKC, sinks_BHT, *, rule, size: int, platform: str):
    """Attends with the kernels of one platform."""
    hooks = Hooks(encoding, tile, v_BSKC.shape[-1], size)
    # The sizes of Triton's arrays are powers of 2; zeros change no product.
    q, k, v = tile.q, tile.k, v_BSKC
    if not hooks.read_content:
        q, k = widened(q), widened(k)
    if not hooks.read_output:
        v = widened(v)
    q_side = _side(tile.q_tokens, hooks.q_used, size, q=q)
    k_side = _side(tile.k_tokens, hooks.k_used, size, k=k, v=v)
    (B, T, H, _), S = q.shape, k.shape[1]
    kernels = Kernels(hooks, jnp.result_type(q, k), v.dtype, size, B, H, T, S, rule, platform)
    out_BHTC = kernels.attention(hooks.ahead(encoding, tile), q_side, k_side, sinks_BHT)
    return out_BHTC.swapaxes(1, 2)[..., : v_BSKC.shape[-1]].astype(v.dtype)


def _side(tokens, used, size, **content):
    """Returns the operands of queries, or of keys, by name."""
    segment_ids = tokens.segment_ids
    return {
        **{name: of_heads(x, size) for name, x in content.items()},
        "index": of_tokens(tokens.order(), size),
        "segment_ids": None if segment_ids is None else of_tokens(segment_ids, size),
        "leaves": used_leaves(tokens, used, size),
    }
