"""Flash attention (2205.14135) in Pallas kernels that run the encoding's hooks on each tile.

One source for two compilers: Triton's on a GPU, Mosaic's on a TPU; on a CPU the kernels are
interpreted, slowly, for tests. ``score`` and ``mix`` are traced once and cut in two
(``program.py``): their work on parameters alone runs ahead, the rest in the kernels, where the
gradients of the parameters are made too, a tile at a time. Memory is linear in the length; on a
TPU the keys and values of one head must fit in VMEM.

Nothing chooses these kernels by itself; only ``implementation="pallas"`` asks for them. No GPU or
TPU was at hand: they are known to be right where they are interpreted, and JAX's half of either
compiler accepts them, but the vendors' halves have not seen them and nobody has measured them.

No kernel runs CoPE and PaTH, which need whole rows, DAPE, which needs all heads in one tile, and
tables of more than 128 rows (DeBERTa's as published). For Triton JAX does not lower Shaw (its
table has an odd number of rows), DeBERTa (``round``), dual chunk attention (three rotations side by
side are no power of 2) and the gradients of ReRoPE, Leaky ReRoPE and Self-Extend (two rotations
side by side are concatenated).
"""

import jax
import jax.numpy as jnp

from posenc_jax.attention.pallas.hooks import Hooks, leaves_of_sides, used_leaves
from posenc_jax.attention.pallas.kernels import Kernels
from posenc_jax.attention.pallas.operands import of_heads, of_tokens, widened

# Rows and columns of a tile.
_SIZES = {"cpu": 16, "gpu": 64, "tpu": 128}


def pallas(
    encoding, tile, v_BSKC, segment_ids, *, causal: bool, in_order: bool, window: int | None
):
    """Softmax attention over a tile that holds every query and key; see ``attend``.

    Raises:
      ValueError: ``score`` needs whole rows, or all heads in one tile.
    """
    if encoding.whole_rows:
        raise ValueError(
            f'implementation="pallas" cannot run {type(encoding).__name__}, whose score needs '
            'whole rows of logits; use "blockwise" or "dense"'
        )
    size = _SIZES[jax.default_backend()]
    hooks = Hooks(encoding, tile, v_BSKC.shape[-1], size)
    # Triton's arrays have a power of 2 of numbers; zeros change no product.
    q, k, v = tile.q, tile.k, v_BSKC
    if not hooks.read_content:
        q, k = widened(q), widened(k)
    if not hooks.read_output:
        v = widened(v)
    q_segments, k_segments = (None if ids is None else of_tokens(ids, size) for ids in segment_ids)
    q_leaves, k_leaves = leaves_of_sides(tile)
    q_side = {
        "q": of_heads(q, size),
        "index": of_tokens(tile.q_index, size),
        "segment_ids": q_segments,
        "leaves": used_leaves(q_leaves, hooks.q_used, size),
    }
    k_side = {
        "k": of_heads(k, size),
        "v": of_heads(v, size),
        "index": of_tokens(tile.k_index, size),
        "segment_ids": k_segments,
        "leaves": used_leaves(k_leaves, hooks.k_used, size),
    }
    (B, T, H, _), S = q.shape, k.shape[1]
    kernels = Kernels(
        *(hooks, jnp.result_type(q, k), v.dtype, size, B, H, T, S),
        causal=causal,
        in_order=in_order,
        window=window,
    )
    out_BHTC = kernels.attention(hooks.ahead(encoding, tile), q_side, k_side)
    return out_BHTC.swapaxes(1, 2)[..., : v_BSKC.shape[-1]].astype(v.dtype)
