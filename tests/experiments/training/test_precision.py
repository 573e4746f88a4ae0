"""Tests of training with products in bfloat16."""

import functools

import chex
import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import FrozenConfigDict

from experiments.running.sweep import recipe_fields
from experiments.training.recipe import Recipe
from experiments.training.step import initial_state, train_step
from experiments.training.text import Text

IDS_BL = np.random.default_rng(0).integers(0, 16, (8, 17))


def task(encoding="rope", products="float32", **model):
    sizes = {"vocab_size": 16, "model_dim": 32, "num_layers": 2, "num_heads": 4}
    spec = FrozenConfigDict({"encoding": {"name": encoding}, "model": sizes | model})
    recipe = Recipe(length=16, batch_size=8, steps=30, learning_rate=1e-2, products=products)
    return Text(recipe, None, spec)


def step_and_state(task):
    state = initial_state(jax.random.key(0), task.init, task.recipe)
    return functools.partial(train_step, loss=task.loss, recipe=task.recipe), state


def losses(task, steps=15):
    step, state = step_and_state(task)
    step, numbers = jax.jit(step), []
    for _ in range(steps):
        state, last = step(state, IDS_BL, jax.random.key(0))
        numbers.append(float(last["loss"]))
    return np.array(numbers), state


@pytest.mark.parametrize("encoding", ["rope", "t5", "fox", "shaw"])
def test_a_model_learns_the_same_with_products_in_bfloat16(encoding):
    exact, state = losses(task(encoding))
    rounded, other_state = losses(task(encoding, "bfloat16"))
    assert (exact != rounded).any() and exact[-1] < exact[0] - 0.3
    np.testing.assert_allclose(rounded, exact, atol=2e-3)
    chex.assert_trees_all_equal_dtypes(other_state, state)


@pytest.mark.parametrize("model", [{}, {"scan": True}, {"remat": True}])
def test_all_products_have_factors_in_bfloat16_and_sums_in_float32(model):
    step, state = step_and_state(task(products="bfloat16", **model))
    jaxpr = jax.make_jaxpr(step)(state, IDS_BL, jax.random.key(0))
    products = list(dot_generals(jaxpr.jaxpr))
    assert len(products) > 20
    for product in products:
        # The sum of squares of RMSNorm and the like are no products of matrices.
        assert {factor.aval.dtype for factor in product.invars} == {jnp.dtype("bfloat16")}, product
        assert product.outvars[0].aval.dtype == jnp.float32, product


def dot_generals(jaxpr):
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            yield equation
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            yield from dot_generals(inner)


def test_runs_that_are_older_than_the_field_are_found_again():
    assert "products" not in recipe_fields(task().recipe)
    assert recipe_fields(task(products="bfloat16").recipe)["products"] == "bfloat16"
