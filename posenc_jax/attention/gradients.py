"""Splits, adds and casts gradients of pytrees: float32, and None for arrays without gradients."""

import jax
import jax.numpy as jnp


def split(tree):
    """Returns the floating-point arrays of ``tree``, and its other arrays; None fills the gaps."""
    leaves, structure = jax.tree.flatten(tree)
    floats = [x if jnp.issubdtype(x.dtype, jnp.floating) else None for x in leaves]
    rest = [x if number is None else None for x, number in zip(leaves, floats, strict=True)]
    return jax.tree.unflatten(structure, floats), jax.tree.unflatten(structure, rest)


def join(tree, rest):
    """Returns the tree that ``split`` cut in two."""
    return jax.tree.map(
        lambda x, other: other if x is None else x, tree, rest, is_leaf=lambda x: x is None
    )


def zero_gradients(tree):
    """Returns float32 zeros for the floating-point arrays of ``tree``, and None for the others."""
    return jax.tree.map(lambda x: jnp.zeros_like(x, jnp.float32), split(tree)[0])


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
