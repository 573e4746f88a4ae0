"""Sums many large arrays, and holds only one of them at a time."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


# Without jit, JAX would compile the loop anew at each call outside of a compiled program.
@functools.partial(jax.jit, static_argnums=0)
def sum_one_by_one(term: Callable[..., jax.Array], units: Any, *shared: Any) -> jax.Array:
    """Returns the sum of ``term(*unit, *shared)`` over the leading axis of ``units``.

    The backward pass computes each term again instead of keeping it.

    Args:
      term: a function of the module, not a closure, so that its program is found again.
      units: a tuple of arrays with one row for each term.
      shared: what all terms read.
    """
    term = jax.checkpoint(term)

    def add(total, unit):
        return total + term(*unit, *shared), None

    start = jnp.zeros_like(term(*(x[0] for x in units), *shared))
    return jax.lax.scan(add, start, units)[0]
