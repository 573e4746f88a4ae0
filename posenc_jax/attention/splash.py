"""Runs Splash attention, JAX's kernel for TPUs, for schemes that leave or cap logits.

The kernel was compiled for TPU v5e and v5p, and interpreted on a CPU to compare it with ``dense``.
It has not run on a TPU, and its speed here is unknown.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, PartitionSpec

from posenc_jax.attention.rule import Rule
from posenc_jax.pairs import Pairs

# The mesh axes that rows and heads lie over, as far as a mesh has them.
ROWS, HEADS = ("data", "fsdp"), ("model",)

# A block has a multiple of _LANES tokens that divides _BLOCK, and as many channels as a head, which
# must fit in vector memory. While it traces, JAX visits all pairs of blocks, for 4 seconds at
# _LONGEST tokens.
_LANES, _BLOCK, _LONGEST, _WIDEST = 128, 512, 2**17, 512


def splash_takes(tile: Pairs, v_BSKC: jax.Array, rule: Rule) -> bool:
    """Returns whether Splash attention runs these operands, forwards and backwards.

    On several devices it does so only under ``jax.set_mesh``, because XLA does not cut kernels.
    """
    arrays = tile.q, tile.k, v_BSKC
    if not all(isinstance(size, int) for x in arrays for size in x.shape):  # of jax.export
        return False
    lengths, segments = (tile.q.shape[1], tile.k.shape[1]), tile.q_tokens.segment_ids
    # Zeros come after the tokens, where only a causal mask hides them.
    fits = rule.causal or all(length % _LANES == 0 for length in lengths)
    fits &= max(lengths) <= _LONGEST and max(x.shape[-1] for x in arrays) <= _WIDEST
    fits &= all(x.dtype in (jnp.bfloat16, jnp.float32) for x in arrays)
    # A query that saw no key would get the mean of all values.
    sees_itself = rule.in_order and segments is tile.k_tokens.segment_ids
    bounds = rule.window, rule.after, rule.chunk, segments
    sees_all = not rule.causal and all(x is None for x in bounds)
    known = not any(isinstance(x, jax.Array) for x in (rule.window, rule.after))
    known &= rule.mask is None and rule.dropout is None
    known &= rule.sinks is None or rule.sinks.shape[:2] == (1, 1)  # one for each head
    return fits and (sees_itself or sees_all) and known and _axes(*arrays) is not None


def splash(
    tile: Pairs,
    v_BSKC: jax.Array,
    rule: Rule,
    soft_cap: float | None,
    *,
    interpret: bool = False,
) -> jax.Array:
    """Attends in Splash attention on each device, to the rows and heads that lie there.

    Call it where ``splash_takes`` is true. ``soft_cap`` is the scheme's (``Encoding``), and
    ``interpret`` runs the kernel on a CPU, for tests.
    """
    dtype = jnp.result_type(tile.q, tile.k, v_BSKC)
    q = (tile.q.astype(jnp.float32) * tile.scale).astype(dtype)  # the kernel takes no scale
    arrays = q, tile.k.astype(dtype), v_BSKC.astype(dtype)
    segments = None
    if tile.q_tokens.segment_ids is not None:
        sides: Any = (tile.q_tokens, tile.q), (tile.k_tokens, tile.k)
        # Sums of ids and zeros lie over the same devices as the rows.
        segments = [t.segment_ids + jnp.zeros_like(x, jnp.int32).max((2, 3)) for t, x in sides]
    sinks = None if rule.sinks is None else rule.sinks[0, 0]
    run = functools.partial(_on_device, rule=rule, soft_cap=soft_cap, interpret=interpret)
    if free := _free(jax.sharding.get_abstract_mesh()):
        axes: Any = _axes(tile.q, tile.k, v_BSKC)
        spec = PartitionSpec(axes[0], None, axes[1])
        run = jax.shard_map(
            run,
            in_specs=(spec, spec, spec, PartitionSpec(axes[0]), PartitionSpec(axes[1])),
            out_specs=spec,
            axis_names=set(free),
            check_vma=False,
        )
    return run(*arrays, segments, sinks).astype(v_BSKC.dtype)


def _on_device(
    q_BTHC,
    k_BSKC,
    v_BSKC,
    segments,
    sinks_H,
    *,
    rule: Rule,
    soft_cap: float | None,
    interpret: bool,
) -> jax.Array:
    # Only programs for TPUs import Pallas.
    from jax.experimental.pallas.ops.tpu import splash_attention as library

    from posenc_jax.attention.splash_mask import mask_of

    length = q_BTHC.shape[1]
    arrays = [_padded(x).swapaxes(1, 2) for x in (q_BTHC, k_BSKC, v_BSKC)]
    T, S = arrays[0].shape[2], arrays[1].shape[2]
    mask = mask_of(rule, T, S)
    q_size, k_size = math.gcd(T, _BLOCK), math.gcd(S, _BLOCK)
    kernel = library.make_splash_mha(
        library.MultiHeadMask([mask]),  # one for all heads
        block_sizes=library.BlockSizes(
            block_q=q_size,
            block_kv=k_size,
            block_q_dkv=q_size,
            block_kv_dkv=k_size,
            block_q_dq=q_size,
            block_kv_dq=k_size,
        ),
        attn_logits_soft_cap=soft_cap,
        head_shards=1,
        q_seq_shards=1,
        interpret=interpret,
    )
    ids = None if segments is None else library.SegmentIds(*map(_padded, segments))
    run = jax.vmap(kernel, in_axes=(0, 0, 0, 0, None))
    return run(*arrays, ids, sinks_H).swapaxes(1, 2)[:, :length]


def _padded(x_BT):
    """Returns an array with zeros after its tokens, up to a multiple of ``_LANES``."""
    widths = [(0, 0), (0, -x_BT.shape[1] % _LANES)] + [(0, 0)] * (x_BT.ndim - 2)
    return jnp.pad(x_BT, widths)


def _axes(q_BTHC, k_BSKC, v_BSKC) -> tuple[Any, Any] | None:
    """Returns the mesh axes that rows and heads lie over, or None where they do not fit.

    Explicit axes are read off the arrays, and Auto axes are known by their names.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty and mesh.abstract_device is None:
        return ((), ()) if jax.device_count() == 1 else None
    kinds = {axis: kind for axis, kind in _free(mesh).items() if mesh.shape[axis] > 1}
    if AxisType.Explicit in kinds.values():
        specs = {jax.typeof(x).sharding.spec for x in (q_BTHC, k_BSKC, v_BSKC)}
        rows, tokens, heads, channels = specs.pop()
        fits = not specs and tokens is None and channels is None
        fits &= AxisType.Auto not in kinds.values()
        return (rows, heads) if fits else None
    rows, heads = (tuple(axis for axis in axes if axis in kinds) for axes in (ROWS, HEADS))
    fits = len(q_BTHC) % math.prod(mesh.shape[axis] for axis in rows) == 0
    fits &= k_BSKC.shape[2] % math.prod(mesh.shape[axis] for axis in heads) == 0
    return (rows, heads) if fits and {*rows, *heads} == kinds.keys() else None


def _free(mesh) -> dict[str, AxisType]:
    """Returns the axes of a mesh that no ``shard_map`` around this call has taken."""
    kinds = zip(mesh.axis_names, mesh.axis_types, strict=True)
    return {axis: kind for axis, kind in kinds if kind != AxisType.Manual}
