"""Draws the initial values of parameters."""

import math

import jax
from flax import nnx


def normal(rngs: nnx.Rngs, *shape: int) -> nnx.Param:
    """Returns a parameter of N(0, 0.02), as GPT-2's and BERT's are."""
    return nnx.Param(0.02 * jax.random.normal(rngs.params(), checked_shape(*shape)))


def uniform(rngs: nnx.Rngs, *shape: int, fan_in: int) -> nnx.Param:
    """Returns a parameter as PyTorch's layers draw theirs, U(-b, b) with b = 1 / sqrt(fan_in)."""
    bound = fan_in**-0.5
    shape = checked_shape(*shape)
    return nnx.Param(jax.random.uniform(rngs.params(), shape, minval=-bound, maxval=bound))


def checked_shape(*shape: int) -> tuple[int, ...]:
    """Returns the shape of a parameter, which has fewer than 2**31 numbers: JAX aborts at more."""
    if math.prod(shape) >= 2**31:
        raise ValueError(
            f"a parameter of shape {shape} would have {math.prod(shape)} numbers, and must have "
            "fewer than 2**31: make the size smaller that gives the table its length, such as "
            "train_length or max_distance"
        )
    return shape
