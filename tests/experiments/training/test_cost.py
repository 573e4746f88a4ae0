"""Tests the count of a program's operations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import FrozenConfigDict

from experiments.training.cost import products, step_flops
from experiments.training.recipe import Recipe
from experiments.training.text import Text

B, T, D, L, F, V = 4, 32, 16, 3, 48, 64


@pytest.mark.parametrize(("name", "scan"), [("nope", False), ("rope", True)])
def test_flops_of_a_step_are_those_of_the_formula(name, scan):
    """A step is three forward passes of projections, feed-forward, attention and output."""
    model = dict(vocab_size=V, model_dim=D, num_layers=L, num_heads=2, mlp_dim=F)
    model |= dict(scan=scan, remat=scan)
    spec = FrozenConfigDict({"encoding": {"name": name}, "model": model})
    task = Text(Recipe(length=T, batch_size=B, steps=1), None, spec)
    flops = step_flops(task, np.zeros((B, T + 1), np.int32))
    a_token = L * (4 * D * D + 3 * D * F + 2 * T * D) + V * D
    assert flops == 3 * 2 * B * T * a_token


def test_flops_of_loops_and_branches():
    matrix = jnp.zeros((8, 8))
    one = products(jax.make_jaxpr(lambda x: x @ x)(matrix))
    assert one == 2 * 8**3

    def loop(x):
        return jax.lax.scan(lambda x, _: (x @ x, None), x, length=5)[0]

    def branch(x):
        return jax.lax.cond(x[0, 0] > 0, lambda x: x @ x @ x, lambda x: x @ x, x)

    assert products(jax.make_jaxpr(loop)(matrix)) == 5 * one
    assert products(jax.make_jaxpr(branch)(matrix)) == 2 * one
