"""Makes the mesh of devices, and places arrays on it by a short list of rules."""

import math
import re
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

AXES = ("data", "model", "context")

# The first pattern found in an array's path places its last axes; an array that matches none is on
# every device. Under scan an array has the layers along a leading axis, which is never sharded. The
# optimizer's moments have their parameter's name in their path, and with it its place.
RULES = (
    (r"/block/(attention/[qkv]|mlp/gate|mlp/up)/kernel$", P(None, "model")),
    (r"/block/(attention/out|mlp/down)/kernel$", P("model", None)),
    (r"/block/attention/[qkv]/bias$", P("model")),
    (r"(^|/)(model|mu|nu)/(un)?embedding$", P("model", None)),
)


def make_mesh(shape: Sequence[int]) -> Mesh:
    """Makes a mesh of all devices; ``shape`` is (data, model, context), one of which may be -1."""
    count = jax.device_count()
    shape = list(shape)
    if len(shape) != len(AXES) or shape.count(-1) > 1 or any(n < 1 and n != -1 for n in shape):
        raise ValueError(
            f"mesh={tuple(shape)} must be three positive sizes {AXES}, one of which may be -1"
        )
    if -1 in shape:
        known = -math.prod(shape)
        shape[shape.index(-1)] = max(count // known, 1)
    if math.prod(shape) != count:
        raise ValueError(
            f"mesh={tuple(shape)} wants {math.prod(shape)} devices, but there are {count} "
            f"({jax.devices()[0].platform}); make the product of (data, model, context) {count}"
        )
    return jax.make_mesh(shape, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def check_length(length: int, mesh: Mesh) -> None:
    """Refuses a training length that the mesh's context axis cannot cut into even pieces."""
    pieces = 2 * mesh.shape["context"]
    if pieces > 2 and length % pieces:
        raise ValueError(
            f"train.length={length} must be a multiple of {pieces}, twice the mesh's context axis"
        )


def state_shardings(state: Any, mesh: Mesh) -> Any:
    """Returns a NamedSharding for every array of ``state``, abstract or not, by ``RULES``."""

    def place(path, array):
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

    return jax.tree_util.tree_map_with_path(place, state)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Spreads the rows of a batch, axis 0 of each of its arrays, over ``data``."""
    return NamedSharding(mesh, P("data"))


def replicated(mesh: Mesh) -> NamedSharding:
    """Places an array on every device."""
    return NamedSharding(mesh, P())


def path_name(path) -> str:
    """Returns where an array is in a tree, as ``model/layers/0/block/attention/q/kernel``."""
    return jax.tree_util.keystr(path, simple=True, separator="/").removesuffix("/value")
