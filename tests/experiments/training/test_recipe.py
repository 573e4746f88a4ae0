"""Tests recipes: the optimizer, its schedule, and what weight decay acts on."""

import functools

import chex
import common
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from toy import TASK

from experiments.studies.multimodal.model import Decoder
from experiments.studies.multimodal.story import TimedViT
from experiments.training.mesh import by_path
from experiments.training.parameters import parameter_count
from experiments.training.recipe import Recipe
from experiments.training.step import initial_state, train_step


def recipe(**fields):
    return Recipe(**dict(length=8, batch_size=8, steps=6, warmup_steps=0) | fields)


def updates(optimizer, gradient, model):
    """Returns what a step of an optimizer adds to each parameter, by its path."""
    update, _ = jax.jit(optimizer.update)(gradient, optimizer.init(model), model)
    return by_path(jax.device_get(update))


def decayed(model, name="adamw") -> set[str]:
    """Returns the parameters that an optimizer step moves where there is no gradient."""
    optimizer = recipe(weight_decay=0.5, optimizer=name).transformation()
    moved = updates(optimizer, jax.tree.map(jnp.zeros_like, model), model)
    return {path for path, update in moved.items() if np.abs(update).max() > 0}


def matrices(num_layers=common.LAYERS):
    """Returns the paths of the matrices of blocks."""
    names = {f"attention/{matrix}/kernel" for matrix in ("q", "k", "v", "out")}
    names |= {f"mlp/{matrix}/kernel" for matrix in ("gate", "up", "down")}
    return {f"layers/{layer}/block/{name}" for layer in range(num_layers) for name in names}


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_matrices_of_blocks_decay_and_no_parameter_of_an_encoding(optimizer):
    model = common.moved(common.build_model("transformer_xl", trained=False), seed=0)
    assert decayed(model, optimizer) == matrices()


@pytest.mark.parametrize("scan", [False, True])
def test_muon_learns_the_matrices_by_orthogonal_steps_as_large_as_those_of_adamw(scan):
    """Every layer's own matrix is orthogonalised, stacked or not, and nothing else is."""
    model = common.moved(common.build_model("shaw", trained=False, scan=scan), seed=0)
    muon = recipe(weight_decay=0.0, optimizer="muon")
    gradient = common.moved(model, seed=1)
    gradient = jax.tree.map(lambda g: g / optax.tree.norm(gradient), gradient)  # none is clipped
    adam = optax.adamw(muon.schedule(), b2=muon.beta2, weight_decay=0.0, nesterov=True)
    expected = updates(adam, gradient, model)
    for name, update in updates(muon.transformation(), gradient, model).items():
        if name in matrices(1 if scan else common.LAYERS):
            values = jnp.linalg.svd(update, compute_uv=False)
            # Five Newton-Schulz iterations bring singular values near 1, not to it.
            assert (values.max(axis=-1) < 2 * jnp.median(values, axis=-1)).all(), name
            size = jnp.sqrt((update**2).mean(axis=(-2, -1)))
            np.testing.assert_allclose(size, 0.2 * muon.learning_rate, rtol=0.2)
        else:
            np.testing.assert_allclose(update, expected[name], rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("kind", [Decoder, TimedViT])
def test_patches_and_norms_that_know_the_time_do_not_decay(kind):
    sizes = dict(model_dim=16, num_layers=1, num_heads=2, patch_dim=5)
    sizes["vocab_size" if kind is Decoder else "num_classes"] = 3
    model = common.moved(kind(common.build("nope"), rngs=nnx.Rngs(0), **sizes), seed=0)
    assert decayed(model) == matrices(1)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_constants_are_neither_trained_nor_counted(optimizer):
    model, plain = (common.build_model(name) for name in ("fope", "nope"))
    count = sum(leaf.size for leaf in jax.tree.leaves(plain))
    assert parameter_count(model) == parameter_count(plain) == count
    one = recipe(optimizer=optimizer)
    state = initial_state(None, lambda _: model, one)
    assert not [path for path in by_path(state.opt_state) if path.endswith("_coef")]
    step = jax.jit(functools.partial(train_step, loss=TASK.loss, recipe=one))
    tokens = jax.random.randint(jax.random.key(1), (8, 9), 0, 16)
    after, _ = step(state, tokens, jax.random.key(2))
    before, after = (nnx.split(one, nnx.Param, ...)[1:] for one in (model, after.model))
    assert jax.tree.leaves(before[1]), "this test can tell"
    chex.assert_trees_all_equal(before[1], after[1])
    assert not any(jax.tree.leaves(jax.tree.map(np.array_equal, before[0], after[0])))


def test_schedule_warms_up_and_falls_to_a_tenth():
    schedule = recipe(steps=100, warmup_steps=10).schedule()
    assert float(schedule(0)) == 0
    assert float(schedule(10)) == pytest.approx(3e-3)
    assert float(schedule(100)) == pytest.approx(3e-4)


def test_bad_recipes_are_refused():
    for field, value in (("learning_rate", float("nan")), ("optimizer", "sgd")):
        common.refuses(f"train.{field}", lambda bad={field: value}: recipe(**bad))
