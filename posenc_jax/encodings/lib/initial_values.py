"""Draws the initial values of parameters."""

import jax
from flax import nnx


def normal(rngs: nnx.Rngs, *shape: int) -> nnx.Param:
    """Returns a parameter of N(0, 0.02), as GPT-2's and BERT's are."""
    return nnx.Param(0.02 * jax.random.normal(rngs.params(), shape))


def uniform(rngs: nnx.Rngs, *shape: int, fan_in: int) -> nnx.Param:
    """Returns a parameter as PyTorch's layers draw theirs, U(-b, b) with b = 1 / sqrt(fan_in)."""
    bound = fan_in**-0.5
    return nnx.Param(jax.random.uniform(rngs.params(), shape, minval=-bound, maxval=bound))
