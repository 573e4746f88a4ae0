"""Attends over tokens that lie on several devices, along the mesh axis ``context``.

Every strategy runs blockwise's tiles on each device, and differs in what devices send:

    gather   each device keeps its queries, and gathers the keys and values of all devices
             (as in Llama 3, https://arxiv.org/abs/2407.21783);
    ulysses  each device exchanges its tokens of all heads for all tokens of some heads
             (DeepSpeed-Ulysses, https://arxiv.org/abs/2309.14509);
    ring     each device keeps its queries, and passes keys and values on to the next device
             (Ring Attention, https://arxiv.org/abs/2310.01889).

Each device decides which tiles it visits, by the index of the tokens that it holds. Under gather
and ring, the first device has almost nothing to do and the last one the most, if tokens lie in
written order: ``zigzag`` balances the work.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import AxisType, PartitionSpec

from posenc_jax.attention.blockwise import Rows, attend_by, backward, forward, map_rows, take_apart
from posenc_jax.attention.dense import FLOOR
from posenc_jax.attention.gradients import add_gradients, cast, floats, zero_gradients
from posenc_jax.attention.rule import Rule
from posenc_jax.attention.splash import HEADS, ROWS
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


def lies_over_context(pairs: Pairs) -> bool:
    """Returns whether several devices share the tokens of queries and of keys evenly."""
    devices = context_size()
    return devices > 1 and pairs.q.shape[1] % devices == pairs.k.shape[1] % devices == 0


def gathered_bytes(pairs: Pairs, v_BSKC: jax.Array) -> int:
    """Returns the bytes that all keys and values of a layer take on a device.

    The other axes of the mesh share their rows and heads.
    """
    mesh = jax.sharding.get_abstract_mesh()
    others = mesh.size // mesh.shape.get(AXIS, 1)
    return sum(x.size * x.dtype.itemsize for x in (pairs.k, v_BSKC)) // others


def gather(encoding: Encoding, pairs: Pairs, v_BSKC: jax.Array, rule: Rule) -> jax.Array:
    """Attends over the mesh axis ``context`` with all keys on each device; see ``ring``."""
    return _over_context("gather", _GATHER, encoding, pairs, v_BSKC, rule)


def ulysses(encoding: Encoding, pairs: Pairs, v_BSKC: jax.Array, rule: Rule) -> jax.Array:
    """Attends over the mesh axis ``context`` with some heads on each device; see ``ring``.

    Raises:
      ValueError: also where the axis does not divide the kv heads, or the scheme mixes heads.
    """
    kv_heads, devices = v_BSKC.shape[2], context_size()
    if kv_heads % devices:
        raise ValueError(
            f'implementation="ulysses" gives each device some of the kv heads, but num_kv_heads='
            f"{kv_heads} is no multiple of the {devices} devices of the mesh axis {AXIS!r}: use "
            '"gather", or "ring"'
        )
    return _over_context("ulysses", _ULYSSES, encoding, pairs, v_BSKC, rule)


def ring(encoding: Encoding, pairs: Pairs, v_BSKC: jax.Array, rule: Rule) -> jax.Array:
    """Attends as ``attend`` does, over tokens that are sharded over the mesh axis ``context``.

    It is called on whole arrays under ``jax.set_mesh``, as everything else in a jitted program;
    sharding over other axes of the mesh is kept. Every length must be a multiple of the size of
    the axis. Under a scheme that needs whole rows no ring is possible, and keys are gathered.

    Raises:
      ValueError: there is no such axis, or it does not divide a length; or the mask is an array.
    """
    passes = _GATHER if encoding.whole_rows else _RING
    return _over_context("ring", passes, encoding, pairs, v_BSKC, rule)


def _over_context(name, passes, encoding, pairs, v_BSKC, rule) -> jax.Array:
    """Attends by the passes of the strategy ``name``."""
    mesh = jax.sharding.get_abstract_mesh()
    if AXIS not in mesh.axis_names:
        raise ValueError(
            f'implementation="{name}" needs a mesh with an axis "{AXIS}", not {mesh.axis_names}: '
            "call under jax.set_mesh(mesh)"
        )
    check_divides(**{AXIS: mesh.shape[AXIS]}, queries=pairs.q.shape[1])
    check_divides(**{AXIS: mesh.shape[AXIS]}, keys=pairs.k.shape[1])
    if rule.mask is not None and not callable(rule.mask):
        raise ValueError(
            f'implementation="{name}" computes each part of a mask on the device that reads it, '
            "and no device has the whole of an array: give the mask as a function of indices, "
            "mask(q_index, k_index), and no Chunks where tokens have segments, which make it an "
            "array"
        )

    def run(encoding, pairs, v_BSKC, rule):
        plan, *operands = take_apart(encoding, pairs, v_BSKC, rule)
        return attend_by(passes, plan, *operands)

    explicit = AxisType.Explicit in mesh.axis_types
    run = _on_auto_axes(run, jax.typeof(pairs.q).sharding) if explicit else run
    return run(encoding, pairs, v_BSKC, rule)


def _on_auto_axes(run, of_q) -> Callable:
    """Returns ``run`` where no axis is Explicit; its loops begin with zeros, which lie nowhere."""
    mesh = jax.sharding.get_abstract_mesh()
    kinds = zip(mesh.axis_names, mesh.axis_types, strict=True)
    axes = tuple(name for name, kind in kinds if kind == AxisType.Explicit)
    by_token = AXIS if AXIS in axes else None
    out = of_q.update(spec=PartitionSpec(of_q.spec[0], by_token, of_q.spec[2], None))
    return jax.sharding.auto_axes(run, axes=axes, out_sharding=out)


# The passes of a strategy, on one device. They return what blockwise's ``forward`` and ``backward``
# return, for the queries and the keys that lie on the device.


def _forward_of_all_keys(plan, queries, keys, shared):
    return forward(plan, queries, _gathered(keys), shared)


def _backward_of_all_keys(plan, queries, keys, shared, *of_rows):
    d_queries, d_keys, d_shared = backward(plan, queries, _gathered(keys), shared, *of_rows)
    return d_queries, _summed_part(d_keys), lax.psum(d_shared, AXIS)


def _forward_of_some_heads(plan, queries, keys, shared):
    shared = _of_these_heads(shared, queries)
    out, lse = forward(plan, _by_head(queries), _by_head(keys), shared)
    return _to_tokens(out.astype(keys.v.dtype), 3), _to_tokens(lse, 3)


def _backward_of_some_heads(plan, queries, keys, shared, *of_rows):
    some = _of_these_heads(shared, queries)
    by_head = (_to_heads(x, 3) for x in of_rows)
    gradients = backward(plan, _by_head(queries), _by_head(keys), some, *by_head)
    d_queries, d_keys, d_shared = gradients
    # The mask of some heads is another function than the caller's, and neither has a gradient.
    d_rule = dataclasses.replace(d_shared.rule, mask=zero_gradients(shared.rule.mask))
    d_shared = d_shared._replace(rule=d_rule)
    return _by_token(d_queries, queries), _by_token(d_keys, keys), lax.psum(d_shared, AXIS)


def _forward_in_steps(plan, queries, keys, shared):
    def step(_, running):
        out, lse, keys = running
        part, part_lse = forward(plan, queries, keys, shared)
        total = jnp.logaddexp(lse, part_lse)
        out = out * jnp.exp(lse - total)[..., None] + part * jnp.exp(part_lse - total)[..., None]
        return out, total, _pass_on(keys)

    shape = (*queries.x.shape[:-1], keys.v.shape[-1])
    running = jnp.zeros(shape), jnp.full(shape[:-1], FLOOR), keys
    out, lse, _ = lax.fori_loop(0, lax.axis_size(AXIS), step, running)
    return out, lse


def _backward_in_steps(plan, queries, keys, shared, *of_rows):
    """Passes keys on with their gradients, which are back on their device after a full round."""

    def step(_, running):
        d_queries, d_shared, keys, d_keys = running
        gradients = backward(plan, queries, keys, shared, *of_rows)
        d_queries, d_keys, d_shared = add_gradients((d_queries, d_keys, d_shared), gradients)
        return d_queries, d_shared, *_pass_on((keys, d_keys))

    d_queries, d_keys, d_shared = zero_gradients((queries, keys, shared))
    running = d_queries, d_shared, keys, d_keys
    d_queries, d_shared, _, d_keys = lax.fori_loop(0, lax.axis_size(AXIS), step, running)
    return d_queries, d_keys, lax.psum(d_shared, AXIS)


def _on_devices(on_device: tuple[Callable, Callable]) -> tuple[Callable, Callable]:
    """Returns passes over whole arrays, given those of one device; see ``attend_by``."""
    of_row = PartitionSpec(*(None,) * 3, AXIS)
    of_rows = PartitionSpec(*of_row, None), of_row

    def run_forward(plan, queries, keys, shared):
        specs = _specs(queries), _specs(keys), PartitionSpec()
        run = _on_each_device(on_device[0], plan, specs, of_rows)
        return run(queries, keys, shared)

    def run_backward(plan, queries, keys, shared, *of_queries):
        specs = _specs(queries), _specs(keys), PartitionSpec(), *of_rows, of_row
        out_specs = _specs(floats(queries)), _specs(floats(keys)), PartitionSpec()
        run = _on_each_device(on_device[1], plan, specs, out_specs)
        return run(queries, keys, shared, *of_queries)

    return run_forward, run_backward


_GATHER = _on_devices((_forward_of_all_keys, _backward_of_all_keys))
_ULYSSES = _on_devices((_forward_of_some_heads, _backward_of_some_heads))
_RING = _on_devices((_forward_in_steps, _backward_in_steps))


def _on_each_device(function, plan, in_specs, out_specs):
    """Runs a pass on each device's part of the arrays; XLA shards over other mesh axes."""

    run = functools.partial(function, plan)
    return jax.shard_map(
        run, in_specs=in_specs, out_specs=out_specs, axis_names={AXIS}, check_vma=False
    )


def _specs(rows):
    """Returns the spec of every array of ``rows``, cut along its tokens."""
    return map_rows(lambda axis, x: PartitionSpec(*(None,) * axis, AXIS), rows)


def _gathered(rows: Rows) -> Rows:
    """Returns the rows of all devices, one device after the other."""

    def of_all(axis, x):
        return _sent(functools.partial(lax.all_gather, axis=axis, tiled=True), x, axis > 1)

    return map_rows(of_all, rows)


def _summed_part(d_rows: Rows) -> Rows:
    """Returns the gradients by the tokens that lie on this device, summed over all devices."""

    def part(axis, x):
        scatter = functools.partial(lax.psum_scatter, scatter_dimension=axis, tiled=True)
        return _sent(scatter, x, axis > 1)

    return map_rows(part, d_rows)


def _sent(collective: Callable, x, has_heads: bool):
    """Returns ``collective(x, AXIS)``, among devices that have the same rows and heads.

    Rows, axis 0, may lie over other axes of the mesh, and heads, axis 1, where ``x`` has them. XLA
    would gather both along these axes before a collective, so it is told that they stay apart.
    """
    mesh = jax.sharding.get_abstract_mesh()
    free = [axis for axis in mesh.axis_names if axis not in mesh.manual_axes]
    spec = [tuple(axis for axis in axes if axis in free) for axes in (ROWS, HEADS)]
    for place, multiple in enumerate((1, mesh.shape[AXIS] if has_heads else 0)):
        size = math.prod(mesh.shape[axis] for axis in spec[place]) * multiple
        if not size or x.shape[place] % size:
            spec[place] = ()
    axes = {*spec[0], *spec[1]}
    run = functools.partial(collective, axis_name=AXIS)
    # JAX 0.12 aborts where an axis is told after one that lies behind it in the mesh. There XLA
    # gathers, unless AXIS is the first axis of the mesh.
    is_ordered = all(mesh.axis_names.index(axis) > mesh.axis_names.index(AXIS) for axis in axes)
    if axes and (is_ordered or jax.__version_info__ < (0, 12)):
        specs = PartitionSpec(*spec)
        run = jax.shard_map(run, in_specs=specs, out_specs=specs, axis_names=axes, check_vma=False)
    return run(x)


def _pass_on(tree):
    """Passes arrays to the next device, and returns the previous device's arrays."""
    devices = lax.axis_size(AXIS)
    to_next = [(i, (i + 1) % devices) for i in range(devices)]
    return jax.tree.map(lambda x: lax.ppermute(x, AXIS, to_next), tree)


# Under ulysses device i of n has every n-th kv head, from i on: where another axis of the mesh cuts
# heads too, each of its parts then has some for every device, and none moves along that axis.


def _to_heads(x, axis: int):
    """Returns all tokens, along ``axis``, of some kv heads, given some tokens of all heads."""

    def exchange(x, axis_name):
        x = x.reshape(x.shape[0], -1, lax.axis_size(AXIS), *x.shape[2:])
        x = lax.all_to_all(x, axis_name, split_axis=2, concat_axis=axis + 1, tiled=True)
        return x.squeeze(2)

    return _sent(exchange, x, has_heads=True)


def _to_tokens(x, axis: int):
    """Returns some tokens, along ``axis``, of all kv heads: the inverse of ``_to_heads``."""

    def exchange(x, axis_name):
        x = jnp.expand_dims(x, 2)
        x = lax.all_to_all(x, axis_name, split_axis=axis + 1, concat_axis=2, tiled=True)
        return x.reshape(x.shape[0], -1, *x.shape[3:])

    return _sent(exchange, x, has_heads=True)


def _by_head(rows: Rows) -> Rows:
    """Returns all tokens of some kv heads; the tokens' own arrays, which are small, have all."""
    tokens = _gathered(Rows(None, None, rows.tokens)).tokens
    x, v = (jax.tree.map(lambda x: _to_heads(x, x.ndim - 2), one) for one in (rows.x, rows.v))
    return Rows(x, v, tokens)


def _by_token(d_rows: Rows, rows: Rows) -> Rows:
    """Returns the gradients by some tokens of all heads, given those of ``_by_head``."""
    d_tokens = _summed_part(Rows(None, None, d_rows.tokens)).tokens
    # Nothing is added to them any more, so they travel in the types of the operands.
    moved = cast((d_rows.x, d_rows.v), (rows.x, rows.v))
    x, v = (jax.tree.map(lambda x: _to_tokens(x, x.ndim - 2), one) for one in moved)
    return Rows(x, v, d_tokens)


def _of_these_heads(shared, queries: Rows) -> Any:
    """Returns what tiles share, for the heads that this device has under ulysses."""
    _, K, G, _, _ = queries.x.shape
    places = jnp.arange(K * G).reshape(-1, lax.axis_size(AXIS), G)[:, lax.axis_index(AXIS)].ravel()
    heads = places if shared.side.heads is None else shared.side.heads[places]
    mask = shared.rule.mask
    if mask is not None:
        mask = jax.tree_util.Partial(_mask_of_heads, mask, places)
    return shared._replace(
        side=dataclasses.replace(shared.side, heads=heads),
        rule=dataclasses.replace(shared.rule, mask=mask),
    )


def _mask_of_heads(mask, places, q_index, k_index) -> jax.Array:
    visible = mask(q_index, k_index)
    is_of_all = visible.ndim < 3 or visible.shape[-3] == 1
    return visible if is_of_all else visible[..., places, :, :]
