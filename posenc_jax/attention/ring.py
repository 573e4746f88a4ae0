"""Attends over tokens on several devices: blockwise's tiles, with keys passed around a ring.

Every device keeps its queries, and passes keys and values, with their tokens, on to the next device
(Ring Attention, https://arxiv.org/abs/2310.01889). In the backward pass keys are passed on with
their gradients, which are back on their first device after a full round. Each device decides which
tiles it visits, by the index of the tokens that it holds at that moment. If tokens lie in written
order, the first device has almost nothing to do and the last one the most: ``zigzag`` balances the
work.

Under a scheme that needs whole rows each device gathers all keys at once, and no ring is needed.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import AxisType, PartitionSpec

from posenc_jax.attention.blockwise import attend_by, backward, forward, map_rows, take_apart
from posenc_jax.attention.dense import FLOOR
from posenc_jax.attention.gradients import add_gradients, floats, zero_gradients
from posenc_jax.attention.rule import Rule
from posenc_jax.checks import check_divides, check_multiple, count_of
from posenc_jax.encoding import Encoding
from posenc_jax.pairs import Pairs

AXIS = "context"


def context_size() -> int:
    """Returns the number of devices that sequences are sharded over, by ``jax.set_mesh``."""
    mesh = jax.sharding.get_abstract_mesh()
    return 1 if AXIS in mesh.manual_axes else mesh.shape.get(AXIS, 1)


def zigzag(length: int, devices: int) -> np.ndarray:
    """Returns the order in which to lay out tokens so that causal work is even, int32 ``[length]``.

    The tokens are cut into twice as many pieces as there are devices, and device i gets piece i
    from the start and piece i from the end. Give the model ``tokens[:, order]`` with
    ``positions[:, order]`` and ``index=order[None]``.

    Raises:
      ValueError: twice the number of devices does not divide the length.
    """
    devices = count_of("devices", devices)
    check_multiple(2 * devices, length=count_of("length", length))  # pad the tokens otherwise
    pieces = np.arange(length, dtype=np.int32).reshape(2, devices, -1)
    return np.stack([pieces[0], pieces[1, ::-1]], axis=1).reshape(-1)


def ring(encoding: Encoding, tile: Pairs, v_BSKC: jax.Array, rule: Rule) -> jax.Array:
    """Attends as ``attend`` does, over tokens that are sharded over the mesh axis ``context``.

    It is called on whole arrays under ``jax.set_mesh``, as everything else in a jitted program;
    sharding over other axes of the mesh is kept. Every length must be a multiple of the size of
    the axis.

    Raises:
      ValueError: there is no such axis, or it does not divide a length; or the mask is an array.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if AXIS not in mesh.axis_names:
        raise ValueError(
            f'implementation="ring" needs a mesh with an axis "{AXIS}", not {mesh.axis_names}: '
            "call under jax.set_mesh(mesh)"
        )
    check_divides(**{AXIS: mesh.shape[AXIS]}, queries=tile.q.shape[1])
    check_divides(**{AXIS: mesh.shape[AXIS]}, keys=tile.k.shape[1])
    if rule.mask is not None and not callable(rule.mask):
        raise ValueError(
            'implementation="ring" passes keys from device to device, where no device has the '
            "columns of a mask array: give the mask as a function of indices, mask(q_index, "
            "k_index), and no Chunks where tokens have segments, which make it an array"
        )
    if AxisType.Explicit in mesh.axis_types:
        return _on_auto_axes(encoding, tile, v_BSKC, rule)
    plan, *operands = take_apart(encoding, tile, v_BSKC, rule)
    devices = context_size()
    plan = dataclasses.replace(plan, q_block=min(plan.q_block, tile.q.shape[1] // devices))
    if not encoding.whole_rows:
        plan = dataclasses.replace(plan, k_block=min(plan.k_block, tile.k.shape[1] // devices))
    return attend_by((_forward, _backward), plan, *operands)


def _on_auto_axes(encoding, tile, v_BSKC, rule) -> jax.Array:
    """Calls ``ring`` where no axis is Explicit; its loops begin with zeros, which lie nowhere."""
    mesh, of_q = jax.sharding.get_abstract_mesh(), jax.typeof(tile.q).sharding
    kinds = zip(mesh.axis_names, mesh.axis_types, strict=True)
    axes = tuple(name for name, kind in kinds if kind == AxisType.Explicit)
    by_token = AXIS if AXIS in axes else None
    out = of_q.update(spec=PartitionSpec(of_q.spec[0], by_token, of_q.spec[2], None))
    return jax.sharding.auto_axes(ring, axes=axes, out_sharding=out)(encoding, tile, v_BSKC, rule)


def _forward(plan, queries, keys, shared):
    """Returns what blockwise's ``forward`` does, over the keys of all devices."""

    def at_once(queries, keys, shared):
        return forward(plan, queries, _all_keys(keys), shared)

    def in_steps(queries, keys, shared):
        def step(_, running):
            out, lse, keys = running
            part, part_lse = forward(plan, queries, keys, shared)
            total = jnp.logaddexp(lse, part_lse)
            out = (
                out * jnp.exp(lse - total)[..., None] + part * jnp.exp(part_lse - total)[..., None]
            )
            return out, total, _pass_on(keys)

        shape = (*queries.x.shape[:-1], keys.v.shape[-1])
        running = jnp.zeros(shape), jnp.full(shape[:-1], FLOOR), keys
        out, lse, _ = lax.fori_loop(0, lax.axis_size(AXIS), step, running)
        return out, lse

    of_rows = PartitionSpec(*(None,) * 3, AXIS, None), PartitionSpec(*(None,) * 3, AXIS)
    in_specs = _specs(queries), _specs(keys), PartitionSpec()
    on_device = at_once if shared.encoding.whole_rows else in_steps
    return _on_each_device(on_device, in_specs, of_rows)(queries, keys, shared)


def _backward(plan, queries, keys, shared, d_out, lse, delta):
    """Returns what blockwise's ``backward`` does, over the keys of all devices."""

    def at_once(queries, keys, shared, *of_rows):
        gradients = backward(plan, queries, _all_keys(keys), shared, *of_rows)
        d_queries, d_keys, d_shared = gradients
        return d_queries, _local_part(d_keys), lax.psum(d_shared, AXIS)

    def in_steps(queries, keys, shared, d_out, lse, delta):
        def step(_, running):
            d_queries, d_shared, keys, d_keys = running
            gradients = backward(plan, queries, keys, shared, d_out, lse, delta)
            d_queries, d_keys, d_shared = add_gradients((d_queries, d_keys, d_shared), gradients)
            return d_queries, d_shared, *_pass_on((keys, d_keys))

        d_queries, d_keys, d_shared = zero_gradients((queries, keys, shared))
        running = d_queries, d_shared, keys, d_keys
        d_queries, d_shared, _, d_keys = lax.fori_loop(0, lax.axis_size(AXIS), step, running)
        return d_queries, d_keys, lax.psum(d_shared, AXIS)

    row = PartitionSpec(*(None,) * 3, AXIS)
    in_specs = _specs(queries), _specs(keys), PartitionSpec(), PartitionSpec(*row, None), row, row
    out_specs = _specs(floats(queries)), _specs(floats(keys)), PartitionSpec()
    on_device = at_once if shared.encoding.whole_rows else in_steps
    run = _on_each_device(on_device, in_specs, out_specs)
    return run(queries, keys, shared, d_out, lse, delta)


def _on_each_device(function, in_specs, out_specs):
    """Runs ``function`` on each device's part of the arrays; XLA shards over other mesh axes."""
    return jax.shard_map(
        function, in_specs=in_specs, out_specs=out_specs, axis_names={AXIS}, check_vma=False
    )


def _specs(rows):
    """Returns the spec of every array of ``rows``, cut along its tokens."""
    return map_rows(lambda axis, x: PartitionSpec(*(None,) * axis, AXIS), rows)


def _all_keys(keys):
    """Returns the keys of all devices, one device after the other."""
    return map_rows(lambda axis, x: lax.all_gather(x, AXIS, axis=axis, tiled=True), keys)


def _local_part(d_keys):
    """Returns the gradients by the keys that lie on this device, summed over all devices."""
    return map_rows(
        lambda axis, x: lax.psum_scatter(x, AXIS, scatter_dimension=axis, tiled=True), d_keys
    )


def _pass_on(tree):
    """Passes arrays to the next device, and returns the previous device's arrays."""
    devices = lax.axis_size(AXIS)
    to_next = [(i, (i + 1) % devices) for i in range(devices)]
    return jax.tree.map(lambda x: lax.ppermute(x, AXIS, to_next), tree)
