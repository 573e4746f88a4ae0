"""Tells the parameters of a model, which training changes, from its constants, which it keeps.

A constant is an array of a module that is no ``nnx.Param``, such as the random matrices of FoPE. It
has no gradient, no moments in the optimizer, and no part in the number of parameters.
"""

from typing import Any

import jax
from flax import nnx


def parameters_of(model: Any) -> Any:
    """Returns the model with None in place of each constant."""
    return jax.tree.map(
        lambda array: array if isinstance(array, nnx.Param) else None,
        model,
        is_leaf=lambda node: isinstance(node, nnx.Variable),
    )


def with_parameters(model: Any, parameters: Any) -> Any:
    """Returns the model with these parameters, from ``parameters_of``, and with its constants."""
    return jax.tree.map(
        lambda new, old: old if new is None else new,
        parameters,
        model,
        is_leaf=lambda node: node is None,
    )


def parameter_count(model: Any) -> int:
    """Returns how many numbers training changes; the model may be abstract."""
    return sum(array.size for array in jax.tree.leaves(parameters_of(model)))
