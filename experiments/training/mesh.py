"""Makes the mesh of devices, and places arrays on it by a short list of rules.

The mesh has four axes. The rows of a batch are spread over ``data`` and ``fsdp``. Parameters and
the optimizer's moments are cut over ``fsdp`` too; the pieces of a layer are gathered while the
layer is computed and then freed, as in ZeRO-3 (1910.02054). ``model`` cuts heads and hidden units,
and ``context`` cuts the tokens of a sequence.
"""

import math
import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from experiments.settings import one_of
from posenc_jax.model.transformer import ROWS

AXES = ("data", "fsdp", "model", "context")
# How attention may go over ``context``, see ``attend``; "" is its own choice.
STRATEGIES = ("", "gather", "ulysses", "ring")

# The first pattern found in an array's path places its last axes; an array that matches none is on
# every device. Under scan an array has the layers along a leading axis, which is never sharded. The
# path of an optimizer's moment contains the path of its parameter, so both are placed alike.
RULES = (
    (r"/block/(attention/[qkv]|mlp/gate|mlp/up)/kernel$", P("fsdp", "model")),
    (r"/block/(attention/out|mlp/down)/kernel$", P("model", "fsdp")),
    (r"/block/attention/[qkv]/bias$", P("model")),
    (r"(^|/)(model|mu|nu)/(un)?embedding$", P("model", "fsdp")),
)


def make_mesh(
    devices: Sequence[Any] | None = None,
    *,
    data: int = -1,
    fsdp: int = 1,
    model: int = 1,
    context: int = 1,
    context_by: str = "",
) -> Mesh:
    """Makes a mesh of devices, by default of all that JAX has.

    One axis may be -1, and takes the devices that the others leave. Raises a ValueError if a size
    is no number of devices, or their product is not the number of devices.

    A mesh does not know ``context_by``, how training attends over ``context``: it is checked here
    with the rest of ``config.mesh``, and ``train`` takes it.
    """
    one_of("mesh.context_by", context_by, STRATEGIES)
    devices = devices or jax.devices()
    sizes = data, fsdp, model, context
    try:
        if min(sizes) < -1:  # which NumPy would take for -1
            raise ValueError
        shape = np.arange(len(devices)).reshape(sizes).shape
    except ValueError:
        raise ValueError(
            f"mesh={_words(dict(zip(AXES, sizes, strict=True)))} must be numbers of devices whose "
            f"product is {len(devices)}, as there are so many ({devices[0].platform}); one of them "
            "may be -1, and is what the others leave"
        ) from None
    kinds = (AxisType.Auto,) * len(AXES)
    return jax.make_mesh(shape, AXES, axis_types=kinds, devices=devices)


def row_shards(mesh: Mesh) -> int:
    """Returns how many parts the rows of a batch are spread over."""
    return math.prod(mesh.shape[axis] for axis in ROWS)


def part_of_process(mesh: Mesh) -> tuple[int, int]:
    """Returns which part of a batch's rows this process holds, and how many parts there are.

    Processes that hold different heads or tokens of the same rows have the same part. Raises a
    ValueError if two processes share some of their rows, but not all.
    """
    count = row_shards(mesh)
    shards: dict[int, set[int]] = {}
    indices: dict[Any, Any] = dict(batch_sharding(mesh).devices_indices_map((count,)))
    for device, (rows,) in indices.items():
        shards.setdefault(device.process_index, set()).add(rows.start or 0)
    parts = sorted({tuple(sorted(shard)) for shard in shards.values()})
    if sum(map(len, parts)) != count or len({len(shard) for shard in parts}) > 1:
        raise ValueError(
            f"mesh={_words(mesh.shape)} gives {jax.process_count()} processes rows that overlap; "
            "let the devices of a process divide the product of model and context, or be a "
            "multiple of it"
        )
    return parts.index(tuple(sorted(shards[jax.process_index()]))), len(parts)


def check_length(length: int, mesh: Mesh) -> None:
    """Raises a ValueError if the mesh's context axis cannot cut a length into even pieces."""
    pieces = 2 * mesh.shape["context"]
    if pieces > 2 and length % pieces:
        raise ValueError(
            f"train.length={length} must be a multiple of {pieces}, twice the mesh's context axis"
        )


def state_shardings(state: Any, mesh: Mesh) -> Any:
    """Returns a NamedSharding for every array of ``state``, abstract or not, by ``RULES``."""

    def sharding_of(path, array):
        name = path_name(path)
        spec = next((spec for pattern, spec in RULES if re.search(pattern, name)), P())
        spec = P(*[None] * (array.ndim - len(spec)), *spec)
        for axis, mesh_axis in enumerate(spec):
            if mesh_axis and array.shape[axis] % mesh.shape[mesh_axis]:
                raise ValueError(
                    f"mesh axis {mesh_axis}={mesh.shape[mesh_axis]} does not divide axis {axis} "
                    f"of {name}, of shape {array.shape}; choose a mesh or a model that fits"
                )
        return NamedSharding(mesh, spec)

    return jax.tree_util.tree_map_with_path(sharding_of, state)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Spreads the rows of a batch, axis 0 of each of its arrays, over ``data`` and ``fsdp``."""
    return NamedSharding(mesh, P(ROWS))


def replicated(mesh: Mesh) -> NamedSharding:
    """Places an array on every device."""
    return NamedSharding(mesh, P())


def _words(shape) -> str:
    return "(" + ", ".join(f"{axis}={size}" for axis, size in shape.items()) + ")"


def by_path(tree: Any) -> dict[str, Any]:
    """Returns the arrays of a tree by their paths, see ``path_name``."""
    return {path_name(p): leaf for p, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}


def path_name(path) -> str:
    """Returns an array's path in a tree, such as ``model/layers/0/block/attention/q/kernel``."""
    return jax.tree_util.keystr(path, simple=True, separator="/").removesuffix("/value")
