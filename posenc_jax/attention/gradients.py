"""Splits, adds and casts gradients of pytrees: float32, and None for arrays without gradients."""

import jax
import jax.numpy as jnp
import numpy as np


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
    """Adds two trees of gradients."""
    return jax.tree.map(jnp.add, tree, other)


def cotangents(operands, gradients):
    """Returns gradients as ``custom_vjp`` requires: in the operands' types, float0 for integers."""

    def cotangent(operand, gradient):
        if operand is None:
            return None
        if gradient is None:
            return np.zeros(operand.shape, jax.dtypes.float0)
        return gradient.astype(operand.dtype)

    return jax.tree.map(cotangent, tuple(operands), tuple(gradients), is_leaf=lambda x: x is None)
