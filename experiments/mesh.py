"""Which device holds what: the mesh, and a short list of rules for placing arrays on it."""

import math
import re
from collections.abc import Sequence

import jax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

AXES = ("data", "model", "context")

# The first pattern found in an array's path places it; what none matches is on every device.
# Blocks are stacked, so their arrays start with a layer axis. The optimizer's moments have their
# parameter's name in their path, and with it its place.
RULES = (
    (r"(attention/[qkv]|mlp/gate|mlp/up)/kernel", P(None, None, "model")),
    (r"(attention/out|mlp/down)/kernel", P(None, "model", None)),
    (r"embedding", P("model", None)),
)


def make_mesh(shape: Sequence[int]) -> Mesh:
    """A mesh of all devices; ``shape`` is (data, model, context), one of which may be -1."""
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


def state_shardings(state, mesh: Mesh):
    """A NamedSharding for every array of ``state`` (abstract or not), by ``RULES``."""

    def place(path, array):
        name = path_name(path)
        spec = next((spec for pattern, spec in RULES if re.search(pattern, name)), P())
        spec = P(*spec[: array.ndim])
        for axis, mesh_axis in enumerate(spec):
            if mesh_axis and array.shape[axis] % mesh.shape[mesh_axis]:
                raise ValueError(
                    f"mesh axis {mesh_axis}={mesh.shape[mesh_axis]} does not divide axis {axis} "
                    f"of {name}, of shape {array.shape}; choose a mesh or a model that fits"
                )
        return NamedSharding(mesh, spec)

    return jax.tree_util.tree_map_with_path(place, state)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Batches of any rank: their rows over ``data``."""
    return NamedSharding(mesh, P("data"))


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, P())


def path_name(path) -> str:
    """``model/blocks/attention/q/kernel``: where an array is in a tree."""
    return jax.tree_util.keystr(path, simple=True, separator="/").removesuffix("/value")
