"""Counts the operations of a training step, and knows the peak speed of devices, for MFU.

Only products are counted, as in PaLM (2204.02311, appendix B): the backward pass has twice as many
as the forward pass. The products of attention count for all pairs of tokens, masked ones included;
what ``remat`` computes a second time is not counted.
"""

import math
import operator
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr

from experiments.training.recipe import Recipe
from experiments.training.step import Task

# Dense bfloat16 products, teraflops a second, by the beginning of the device's name: from NVIDIA's
# data sheets, without sparsity, and from Google's pages on Cloud TPU.
PEAK = {
    "NVIDIA A100": 312.0,
    "NVIDIA H100": 989.0,
    "NVIDIA H200": 989.0,
    "TPU v4": 275.0,
    "TPU v5 lite": 197.0,
    "TPU v5": 459.0,
    "TPU v6 lite": 918.0,
}


def peak_flops(device_kind: str) -> float | None:
    """Returns a device's peak flops a second of bfloat16 products, or None if it is not known."""
    # The longest name that fits, because one name may begin another.
    known = max((name for name in PEAK if device_kind.startswith(name)), key=len, default=None)
    return None if known is None else 1e12 * PEAK[known]


def mean_flops(tasks: list[Task], recipe: Recipe) -> float:
    """Returns the operations of a training step, see ``step_flops``, on average over the run.

    The ``tasks`` are those of the recipe's phases, from ``in_phases``.
    """
    counts = [step_flops(one, one.batch(0, 1, 0, 1)) for one in tasks]
    return sum(map(operator.mul, counts, recipe.steps_of_parts)) / recipe.steps


def step_flops(task: Task, batch: Any) -> int:
    """Returns the floating-point operations of the products of a training step on ``batch``."""

    def loss(key, batch):
        model = task.init(key)
        # The other implementations skip tiles and compute tiles twice.
        model.implementation = "dense"
        return task.loss(model, batch, key)

    key = jax.eval_shape(jax.random.key, 0)
    return 3 * products(jax.make_jaxpr(loss)(key, batch))


def products(jaxpr: Any) -> int:
    """Returns the floating-point operations of all products in a program, a (closed) jaxpr.

    The body of a loop counts once for each iteration if their number is known, and once otherwise.
    Of several branches the most expensive one counts.
    """
    total = 0
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            sizes = [equation.invars[0].aval.shape[axis] for axis in contracted]
            total += 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(sizes)
            continue
        params = jax.tree.leaves(list(equation.params.values()))
        inner = [
            products(program) for program in params if isinstance(program, ClosedJaxpr | Jaxpr)
        ]
        together = max if equation.primitive.name == "cond" else sum
        total += equation.params.get("length", 1) * together(inner) if inner else 0
    return total
