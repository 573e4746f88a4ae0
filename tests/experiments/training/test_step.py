"""Tests a training step: its loss, its gradient, and how its arrays lie on a mesh."""

import functools

import chex
import common
import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import FrozenConfigDict
from toy import RECIPE, SPEC, TASK

from experiments.running.study import recipe_fields
from experiments.training.mesh import make_mesh, state_shardings
from experiments.training.recipe import Recipe
from experiments.training.step import initial_state, train_step
from experiments.training.text import Text


def test_gradient_accumulation_is_the_whole_batch():
    state = common.text_state(jax.random.key(0), SPEC, RECIPE)
    tokens = jax.random.randint(jax.random.key(1), (8, 9), 0, 16)
    step = jax.jit(functools.partial(train_step, loss=TASK.loss), static_argnames="recipe")
    whole, numbers = step(state, tokens, jax.random.key(2), recipe=RECIPE)
    parts = Recipe(length=8, batch_size=8, steps=6, warmup_steps=2, accumulate=4)
    accumulated, same_numbers = step(state, tokens, jax.random.key(2), recipe=parts)
    np.testing.assert_allclose(numbers["loss"], same_numbers["loss"], rtol=1e-6)
    # The first update is Adam's sign of the gradient: compare moments, which keep its size.
    moments = [state.opt_state[1][0].mu for state in (whole, accumulated)]
    chex.assert_trees_all_close(*moments, rtol=1e-4, atol=1e-7)


def test_micro_batches_of_bfloat16_parameters_are_summed_in_float32():
    """Beside the first gradient, each of the others is too small for a sum in bfloat16."""
    model = common.build_model("nope", param_dtype="bfloat16")

    def loss(model, batch, key):
        return (batch * model.final_norm.scale[0]).sum()

    recipe = Recipe(length=8, batch_size=64, steps=6, accumulate=64)
    batch = jnp.ones(64).at[0].set(256)
    step = jax.jit(functools.partial(train_step, loss=loss, recipe=recipe))
    state, numbers = step(initial_state(None, lambda _: model, recipe), batch, jax.random.key(0))
    np.testing.assert_allclose(numbers["gradient_norm"], batch.mean(), rtol=2**-8)
    assert {leaf.dtype for leaf in jax.tree.leaves(state.model)} == {jnp.bfloat16.dtype}


@pytest.mark.parametrize("scan", [False, True])
def test_parameters_and_optimizer_moments_are_cut_over_model_and_fsdp(scan):
    """One rule serves blocks that are written out and blocks that are stacked."""
    mesh = make_mesh(fsdp=2, model=4)
    model = SPEC.model.to_dict() | {"num_layers": 2, "scan": scan}
    spec = FrozenConfigDict(SPEC.to_dict() | {"model": model})
    init = functools.partial(common.text_state, spec=spec, recipe=RECIPE)
    shardings = state_shardings(jax.eval_shape(init, jax.random.key(0)), mesh)
    state = jax.jit(init, out_shardings=shardings)(jax.random.key(0))
    moments = state.opt_state[1][0]
    stack = (2,) * scan
    for model in (state.model, moments.mu, moments.nu):
        block = model.layers[0].block
        for kernel, whole, part in (
            (block.attention.q.kernel, (16, 16), (8, 4)),
            (block.attention.out.kernel, (16, 16), (4, 8)),
            (block.mlp.up.kernel, (16, 64), (8, 16)),
            (block.mlp.down.kernel, (64, 16), (16, 8)),
        ):
            assert kernel.shape == (*stack, *whole)
            assert kernel[...].addressable_shards[0].data.shape == (*stack, *part)
        assert model.embedding[...].addressable_shards[0].data.shape == (4, 8)
        norm = block.attention_norm.scale[...]
        assert norm.addressable_shards[0].data.shape == norm.shape


# Products in bfloat16


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


@pytest.mark.parametrize("encoding", ["rope", "fox"])
def test_a_model_learns_the_same_with_products_in_bfloat16(encoding):
    exact, state = losses(task(encoding))
    rounded, other_state = losses(task(encoding, "bfloat16"))
    assert (exact != rounded).any() and exact[-1] < exact[0] - 0.3
    np.testing.assert_allclose(rounded, exact, atol=2e-3)
    chex.assert_trees_all_equal_dtypes(other_state, state)


@pytest.mark.parametrize("model", [{}, {"scan": True, "remat": True}])
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
