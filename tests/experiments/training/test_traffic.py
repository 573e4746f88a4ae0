"""Tests that what devices send for attention is counted as the program sends it."""

import functools

import common
import jax
import pytest
import toy
from ml_collections import FrozenConfigDict

import posenc_jax
from experiments.training.mesh import make_mesh
from experiments.training.recipe import Recipe
from experiments.training.step import initial_state, train_step
from experiments.training.text import Text
from experiments.training.traffic import traffic

DEVICES = 2
RECIPE = Recipe(length=32, batch_size=2, steps=2)


def task_of(scheme, **model):
    sizes = dict(vocab_size=common.VOCAB, model_dim=32, num_layers=2, num_heads=4, num_kv_heads=2)
    spec = FrozenConfigDict({"encoding": {"name": scheme}, "model": sizes | model})
    return Text(RECIPE, toy.toy_windows(RECIPE.length, common.VOCAB), spec)


def test_bytes_are_those_of_keys_and_values():
    task, mesh = task_of("rope"), make_mesh(jax.devices()[:DEVICES], context=DEVICES)
    sent, chosen, why = traffic(task, RECIPE, mesh)
    assert chosen == "gather" and "at most 1,024 MiB" in why
    # Keys and values of a layer on a device, which are sent in both passes, and their gradients.
    piece, layers = 2 * (2 * 32 * 2 * 8) * 4 / DEVICES, 2
    assert sent["gather"] == pytest.approx(layers * 3 * piece, rel=0.03)
    assert sent["ring"] == DEVICES * sent["gather"]
    # Twice as many heads have queries, and an output, of which each device sends a half.
    assert sent["ulysses"] == pytest.approx(layers * 3 * 3 * piece / DEVICES, rel=0.05)


def test_keys_that_do_not_fit_go_around(monkeypatch):
    task, mesh = task_of("rope", num_heads=4, num_kv_heads=1), make_mesh(data=4, context=2)
    monkeypatch.setattr(posenc_jax.attention, "MOST_GATHERED", 0)
    sent, chosen, _ = traffic(task, RECIPE, mesh)
    assert chosen == "ring" and set(sent) == {"gather", "ring"}
    assert traffic(task_of("cope"), RECIPE, mesh)[1] == "gather", "it needs all keys at once"


def test_a_strategy_of_the_config_and_no_other():
    task, mesh = task_of("rope"), make_mesh(jax.devices()[:DEVICES], context=DEVICES)
    for by in ("", "ulysses"):
        step = functools.partial(train_step, loss=task.loss, recipe=RECIPE, context_by=by)
        state = initial_state(jax.random.key(0), task.init, RECIPE)
        with jax.set_mesh(mesh):
            program = jax.make_jaxpr(step)(state, task.batch(0, 1, 0, 1), jax.random.key(0))
        assert ("all_to_all" in str(program)) == (by == "ulysses")
