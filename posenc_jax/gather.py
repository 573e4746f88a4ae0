"""Which rows of a table: lookup that works on any mesh, and rows shared by groups of heads."""

import jax
import jax.numpy as jnp
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


def for_heads(values_KX, num_heads: int) -> jax.Array:
    """The row of ``values``, one for each kv head, that each of ``num_heads`` heads reads.

    For ``rotate``, which gets the kv heads of keys and all the heads of queries.
    """
    num_kv_heads = values_KX.shape[0]
    if num_heads % num_kv_heads:
        raise ValueError(
            f"the encoding was made for num_kv_heads={num_kv_heads}, but attention has {num_heads} "
            "heads of queries or keys, no multiple of it; pass num_kv_heads= to make"
        )
    group = num_heads // num_kv_heads
    return values_KX if group == 1 else jnp.repeat(values_KX, group, axis=0)
