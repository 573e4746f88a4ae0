"""Table lookup that works on any mesh."""

import jax
from jax.sharding import PartitionSpec


def rows(table, index, **options) -> jax.Array:
    """``table[index]``, laid out over the devices as ``index`` is.

    On a mesh of Explicit axes a gather must say where its result lies; on any other, and on none,
    this says nothing. ``options`` go to ``table.at[index].get``.
    """
    sharding = jax.typeof(index).sharding
    if not sharding.mesh.empty:
        spec = (*sharding.spec, *[None] * (table.ndim - 1))
        options["out_sharding"] = sharding.update(spec=PartitionSpec(*spec))
    return table.at[index].get(**options)
