"""Looks up rows by comparing an index with every row, because kernels have no gather."""

import jax
import jax.numpy as jnp

from posenc_jax.lookup import Lookup

# The most rows of a table that is compared row by row, because the program grows with each row.
_MOST_ROWS = 128


def rows(table, index) -> jax.Array:
    """Returns ``table[index]``."""
    index = jnp.expand_dims(index, tuple(range(index.ndim, index.ndim + table.ndim - 1)))
    return _compared(table, index, axis=0, keepdims=False)


def pick(table, index) -> jax.Array:
    """Returns ``table[..., index]``, each row by its own indices."""
    return _compared(table, index, axis=table.ndim - 1, keepdims=True)


COMPARISON = Lookup(rows, pick)


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
