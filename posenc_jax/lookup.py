"""Looks up rows of tables, and multiplies with them, on any mesh."""

import contextlib
import contextvars

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, PartitionSpec

# The most rows of a table that is compared row by row, because the program grows with each row.
_MOST_ROWS = 128

_COMPARES = contextvars.ContextVar("compares", default=False)


def compares() -> bool:
    """Returns whether lookups are being traced ``by_comparison``, as in a kernel."""
    return _COMPARES.get()


@contextlib.contextmanager
def by_comparison():
    """Makes lookups inside it compare the index with every row, since kernels have no gather."""
    token = _COMPARES.set(True)
    try:
        yield
    finally:
        _COMPARES.reset(token)


def rows(table, index, **options) -> jax.Array:
    """Returns ``table[index]``, sharded as ``index`` is.

    On a mesh with Explicit axes a gather must be given the sharding of its result; elsewhere this
    has no effect. ``options`` go to ``table.at[index].get``.
    """
    if compares():
        index = jnp.expand_dims(index, tuple(range(index.ndim, index.ndim + table.ndim - 1)))
        return _compared(table, index, axis=0, keepdims=False)
    sharding = jax.typeof(index).sharding
    if not sharding.mesh.empty:
        spec = (*sharding.spec, *[None] * (table.ndim - 1))
        options["out_sharding"] = sharding.update(spec=PartitionSpec(*spec))
    return table.at[index].get(**options)


def pick(table, index) -> jax.Array:
    """Returns ``table[..., index]``, each row by its own indices, of ``[..., R]`` and ``[..., S]``.

    ``index`` is of the rank of ``table``; axes of size 1 are shared. Every index must be within
    ``0 .. R - 1``: nothing checks it.
    """
    if compares():
        return _compared(table, index, axis=table.ndim - 1, keepdims=True)
    return jnp.take_along_axis(table, index, axis=-1, mode="promise_in_bounds")


def tally(weights, index, size: int) -> jax.Array:
    """Sums ``weights [..., S]`` that share an index, ``[..., size]``: the adjoint of ``pick``."""
    empty = jnp.broadcast_to(jnp.zeros_like(weights[..., :1]), (*weights.shape[:-1], size))
    _, adjoint = jax.vjp(lambda table: pick(table, index), empty)
    return adjoint(weights)[0]


def row_products(x_BTHC, table) -> jax.Array:
    """Multiplies every vector with every row of ``[R, C]`` or ``[H, R, C]``: ``[B, H, T, R]``."""
    check_width(x_BTHC, table.shape[-1])
    # The product is in float32, because XLA:CPU cannot run it in bfloat16.
    x_BTHC, table = x_BTHC.astype(jnp.float32), table.astype(jnp.float32)
    if table.ndim == 2:
        return jnp.einsum("bthc,rc->bhtr", x_BTHC, table)
    return jnp.einsum("bthc,hrc->bhtr", x_BTHC, lying_as_heads(table, x_BTHC))


def check_width(x_BTHC: jax.Array, head_dim: int) -> None:
    """Checks that heads have the number of channels that the encoding was made for."""
    if x_BTHC.shape[-1] != head_dim:
        raise ValueError(
            f"heads have {x_BTHC.shape[-1]} channels, but the encoding was made for "
            f"head_dim={head_dim}; pass head_dim={x_BTHC.shape[-1]} to make"
        )


def lying_as_heads(table, x_BTHC) -> jax.Array:
    """Returns ``table`` ``[H, ...]``, sharded as the heads of ``x_BTHC`` are.

    On a mesh with Explicit axes both factors of a product must be sharded alike. Elsewhere the
    table is returned as it is.
    """
    layout = jax.typeof(x_BTHC).sharding
    if AxisType.Explicit not in layout.mesh.axis_types:
        return table
    return jax.sharding.reshard(table, PartitionSpec(layout.spec[2]))


def _compared(table, index, axis, keepdims):
    """Looks up ``index`` along ``axis`` of a table, by comparison with every row."""
    size = table.shape[axis]
    if size > _MOST_ROWS:
        raise ValueError(
            f'implementation="pallas" cannot look up a table of {size} rows: it compares an index '
            f'with each, and takes at most {_MOST_ROWS}; make the table smaller or use "dense"'
        )
    number = jax.lax.broadcasted_iota(jnp.int32, table.shape, axis)
    out = jnp.zeros((), table.dtype)
    for r in range(size):
        row = jnp.where(number == r, table, 0).sum(axis, keepdims=keepdims)
        out = jnp.where(index == r, row, out)
    return out
