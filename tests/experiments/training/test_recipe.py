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
from experiments.training.mesh import path_name
from experiments.training.parameters import parameter_count
from experiments.training.recipe import Recipe, decays
from experiments.training.step import initial_state, train_step


def decayed(model, name="adamw") -> set[str]:
    """Returns the parameters that an optimizer step moves where there is no gradient."""
    recipe = Recipe(
        length=8, batch_size=8, steps=6, warmup_steps=0, weight_decay=0.5, optimizer=name
    )
    optimizer = recipe.transformation()

    @jax.jit
    def updates(model):
        zero = jax.tree.map(jnp.zeros_like, model)
        return optimizer.update(zero, optimizer.init(model), model)[0]

    moved = jax.tree_util.tree_flatten_with_path(jax.device_get(updates(model)))[0]
    return {path_name(path) for path, update in moved if np.abs(update).max() > 0}


MATRICES = {f"attention/{matrix}/kernel" for matrix in ("q", "k", "v", "out")}
MATRICES |= {f"mlp/{matrix}/kernel" for matrix in ("gate", "up", "down")}


@pytest.mark.parametrize("name", common.one_of_each_kind())
def test_weight_decay_is_the_same_for_every_scheme(name):
    """The matrices of the blocks decay, and no parameter of any encoding does."""
    says = jax.tree_util.tree_flatten_with_path(decays(common.build_model(name)))[0]
    assert {path_name(path) for path, it_decays in says if it_decays} == {
        f"layers/{layer}/block/{matrix}" for layer in range(common.LAYERS) for matrix in MATRICES
    }


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_the_optimizer_follows_the_rule_of_decay(optimizer):
    model = common.moved(common.build_model("transformer_xl", trained=False), seed=0)
    assert decayed(model, optimizer) == {
        f"layers/{layer}/block/{matrix}" for layer in range(common.LAYERS) for matrix in MATRICES
    }


@pytest.mark.parametrize("scan", [False, True])
def test_muon_learns_the_matrices_by_orthogonal_steps_as_large_as_those_of_adamw(scan):
    """Every layer's own matrix is orthogonalised, stacked or not, and nothing else is."""
    model = common.moved(common.build_model("shaw", trained=False, scan=scan), seed=0)
    recipe = Recipe(
        length=8, batch_size=8, steps=6, warmup_steps=0, weight_decay=0.0, optimizer="muon"
    )
    gradient = common.moved(model, seed=1)
    gradient = jax.tree.map(lambda g: g / optax.tree.norm(gradient), gradient)  # none is clipped
    adam = optax.adamw(recipe.schedule(), b2=recipe.beta2, weight_decay=0.0, nesterov=True)

    def updates_of(optimizer):
        updates, _ = jax.jit(optimizer.update)(gradient, optimizer.init(model), model)
        return {path_name(p): u for p, u in jax.tree_util.tree_flatten_with_path(updates)[0]}

    expected = updates_of(adam)
    matrices = {f"layers/{n}/block/{matrix}" for n in range(common.LAYERS) for matrix in MATRICES}
    for name, update in updates_of(recipe.transformation()).items():
        if name in ({f"layers/0/block/{matrix}" for matrix in MATRICES} if scan else matrices):
            values = jnp.linalg.svd(update, compute_uv=False)
            # Five Newton-Schulz iterations bring singular values near 1, not to it.
            assert (values.max(axis=-1) < 2 * jnp.median(values, axis=-1)).all(), name
            size = jnp.sqrt((update**2).mean(axis=(-2, -1)))
            np.testing.assert_allclose(size, 0.2 * recipe.learning_rate, rtol=0.2)
        else:
            np.testing.assert_allclose(update, expected[name], rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("kind", [Decoder, TimedViT])
def test_patches_and_norms_that_know_the_time_do_not_decay(kind):
    sizes = dict(model_dim=16, num_layers=1, num_heads=2, patch_dim=5)
    sizes["vocab_size" if kind is Decoder else "num_classes"] = 3
    model = common.moved(kind(common.build("nope"), rngs=nnx.Rngs(0), **sizes), seed=0)
    assert decayed(model) == {f"layers/0/block/{matrix}" for matrix in MATRICES}


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_constants_are_neither_trained_nor_counted(optimizer):
    model, plain = (common.build_model(name) for name in ("fope", "nope"))
    count = sum(leaf.size for leaf in jax.tree.leaves(plain))
    assert parameter_count(model) == parameter_count(plain) == count
    recipe = Recipe(length=8, batch_size=8, steps=6, warmup_steps=0, optimizer=optimizer)
    state = initial_state(None, lambda _: model, recipe)
    moments = jax.tree_util.tree_flatten_with_path(state.opt_state)[0]
    assert not [path for path, _ in moments if path_name(path).endswith("_coef")]
    step = jax.jit(functools.partial(train_step, loss=TASK.loss, recipe=recipe))
    tokens = jax.random.randint(jax.random.key(1), (8, 9), 0, 16)
    after, _ = step(state, tokens, jax.random.key(2))
    before, after = (nnx.split(one, nnx.Param, ...)[1:] for one in (model, after.model))
    assert jax.tree.leaves(before[1]), "this test can tell"
    chex.assert_trees_all_equal(before[1], after[1])
    assert not any(jax.tree.leaves(jax.tree.map(np.array_equal, before[0], after[0])))


def test_schedule_warms_up_and_falls_to_a_tenth():
    schedule = Recipe(length=8, batch_size=8, steps=100, warmup_steps=10).schedule()
    assert float(schedule(0)) == 0
    assert float(schedule(10)) == pytest.approx(3e-3)
    assert float(schedule(100)) == pytest.approx(3e-4)


@pytest.mark.parametrize(
    "field,value",
    [
        ("steps", 0),
        ("accumulate", 3),
        ("learning_rate", float("nan")),
        ("optimizer", "sgd"),
        ("profile_steps", "5:5"),
    ],
)
def test_bad_recipes_are_refused(field, value):
    with pytest.raises(ValueError, match=f"train.{field}"):
        Recipe(**({"length": 8, "batch_size": 8, "steps": 6} | {field: value}))
