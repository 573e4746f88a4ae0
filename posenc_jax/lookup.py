"""Looks up rows of tables, and multiplies with them, on any mesh."""

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec


def rows(table, index, **options) -> jax.Array:
    """Returns ``table[index]``, sharded as ``index`` is.

    On a mesh with Explicit axes a gather must be given the sharding of its result; elsewhere this
    has no effect. ``options`` go to ``table.at[index].get``.
    """
    sharding = jax.typeof(index).sharding
    if not sharding.mesh.empty:
        spec = (*sharding.spec, *[None] * (table.ndim - 1))
        options["out_sharding"] = sharding.update(spec=PartitionSpec(*spec))
    return table.at[index].get(**options)


def pick(table, index) -> jax.Array:
    """Returns ``[..., S]``, each row of ``table [..., R]`` at its row of ``index [..., S]``.

    Both have the same number of axes; an axis of size 1 is shared. Every index must be within
    ``0 .. R - 1``: nothing checks it.
    """
    return jnp.take_along_axis(table, index, axis=-1, mode="promise_in_bounds")


def row_products(x_BTHC, table) -> jax.Array:
    """Multiplies every vector with every row of ``[R, C]`` or ``[H, R, C]``: ``[B, H, T, R]``."""
    check_width(x_BTHC, head_dim=table.shape[-1])
    # The product is in float32, because XLA:CPU cannot run it in bfloat16.
    x_BTHC, table = x_BTHC.astype(jnp.float32), table.astype(jnp.float32)
    if table.ndim == 2:
        return jnp.einsum("bthc,rc->bhtr", x_BTHC, table)
    return jnp.einsum("bthc,hrc->bhtr", x_BTHC, lying_as_heads(table, x_BTHC))


def check_width(x: jax.Array, **width: int) -> None:
    """Checks that heads, or inputs, have the ``head_dim=`` or ``model_dim=`` of the encoding."""
    ((name, size),) = width.items()
    if x.shape[-1] != size:
        raise ValueError(
            f"an array of shape {x.shape} has {x.shape[-1]} channels, but the encoding was made "
            f"for {name}={size}; pass {name}={x.shape[-1]} to make"
        )


def lying_as_heads(table, x_BTHC) -> jax.Array:
    """Returns ``table`` ``[H, ...]``, sharded as the heads of ``x_BTHC`` are.

    On a mesh with Explicit axes both factors of a product must be sharded alike. Elsewhere the
    table is returned as it is.
    """
    layout = jax.typeof(x_BTHC).sharding
    if AxisType.Explicit not in layout.mesh.axis_types:
        return table
    sharding = NamedSharding(layout.mesh, PartitionSpec(layout.spec[2]))
    return jax.sharding.reshard(table, sharding)


def with_whole_rows(x_BTN: jax.Array) -> jax.Array:
    """Returns ``x [B, T, ...]`` with all tokens of a row on each device that has the row.

    JAX does not slice or pad tokens that an Explicit axis of a mesh shares. On Auto axes XLA shares
    the work itself, and the array is returned as it is.
    """
    layout = jax.typeof(x_BTN).sharding
    if AxisType.Explicit not in layout.mesh.axis_types or layout.spec[1] is None:
        return x_BTN
    whole = layout.update(spec=PartitionSpec(layout.spec[0], None, *layout.spec[2:]))
    return jax.sharding.reshard(x_BTN, whole)


def lying_as(x: jax.Array, other: jax.Array) -> jax.Array:
    """Returns ``x``, sharded over Explicit axes as ``other``, which has the same shape, is."""
    layout = jax.typeof(other).sharding
    if AxisType.Explicit not in layout.mesh.axis_types:
        return x
    return jax.sharding.reshard(x, layout)
