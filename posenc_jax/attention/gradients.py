"""Adds and casts gradients of pytrees, which are float32, and None for arrays without gradients."""

import jax
import jax.numpy as jnp


def floats(tree):
    """Returns the floating-point arrays of ``tree``, with None in place of its other arrays."""
    return jax.tree.map(lambda x: x if jnp.issubdtype(x.dtype, jnp.floating) else None, tree)


def zero_gradients(tree):
    """Returns float32 zeros for the floating-point arrays of ``tree``, and None for the others."""
    return jax.tree.map(lambda x: jnp.zeros_like(x, jnp.float32), floats(tree))


def add_gradients(tree, other):
    """Adds ``other``, in whatever types it has, to a tree of gradients, which keep their types."""
    return jax.tree.map(lambda x, y: x + y.astype(x.dtype), tree, other)


def cast(gradients, operands):
    """Returns gradients in the types of the operands, as ``custom_vjp`` requires."""
    return jax.tree.map(
        lambda gradient, operand: None if gradient is None else gradient.astype(operand.dtype),
        gradients,
        operands,
        is_leaf=lambda x: x is None,
    )
