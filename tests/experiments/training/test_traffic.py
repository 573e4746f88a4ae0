"""Tests that what devices send for attention is counted as the program sends it."""

import functools

import common
import jax
import pytest
import toy
from jax.extend.core import ClosedJaxpr, Jaxpr
from ml_collections import FrozenConfigDict

import posenc_jax
from experiments.training.mesh import make_mesh
from experiments.training.recipe import Recipe
from experiments.training.step import initial_state, train_step, under
from experiments.training.text import Text
from experiments.training.traffic import calls_of, traffic

DEVICES = 2
RECIPE = Recipe(length=32, batch_size=2, steps=2)


def task_of(scheme, **model):
    sizes = dict(vocab_size=common.VOCAB, model_dim=32, num_layers=2, num_heads=4, num_kv_heads=2)
    spec = FrozenConfigDict({"encoding": {"name": scheme}, "model": sizes | model})
    return Text(RECIPE, toy.toy_windows(RECIPE.length, common.VOCAB), spec)


def sent_by(jaxpr) -> float:
    """Returns the bytes that the collectives of a program send from each device."""
    total = 0.0
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        size = sum(x.aval.size * x.aval.dtype.itemsize for x in equation.invars)
        share = {
            "all_gather": DEVICES - 1,
            "reduce_scatter": (DEVICES - 1) / DEVICES,
            "all_to_all": (DEVICES - 1) / DEVICES,
            "ppermute": 1,
        }.get(equation.primitive.name, 0)
        total += share * size
        params = jax.tree.leaves(list(equation.params.values()))
        inner = [sent_by(one) for one in params if isinstance(one, ClosedJaxpr | Jaxpr)]
        total += equation.params.get("length", 1) * sum(inner)
    return total


@pytest.mark.parametrize(("scheme", "model"), [("rope", {}), ("fox", {"remat": True})])
def test_bytes_are_those_of_the_collectives(scheme, model):
    task, mesh = task_of(scheme, **model), make_mesh(jax.devices()[:DEVICES], context=DEVICES)
    counted, chosen, _ = traffic(task, RECIPE, mesh)
    assert chosen == "gather"
    assert set(counted) == {"gather", "ulysses", "ring"}
    batch = task.batch(0, 1, 0, 1)
    for by, expected in counted.items():

        def loss(model, by=by):
            return task.loss(under(model, by), batch, None)

        with jax.set_mesh(mesh):
            program = jax.make_jaxpr(jax.grad(loss, allow_int=True))(task.init(jax.random.key(0)))
        # JAX leaves out some positions, which no hook of FoX reads.
        assert sent_by(program) == pytest.approx(expected, rel=0.02), by


@pytest.mark.parametrize("context", [2, 4])
def test_devices_along_other_axes_share_the_rows(context):
    task, others = task_of("rope"), 8 // context
    alone, _, _ = traffic(task, RECIPE, make_mesh(jax.devices()[:context], context=context))
    among, _, _ = traffic(task, RECIPE, make_mesh(data=others, context=context))
    assert among == {by: sent / others for by, sent in alone.items()}


def test_keys_that_do_not_fit_go_around(monkeypatch):
    task, mesh = task_of("rope", num_heads=4, num_kv_heads=1), make_mesh(data=4, context=2)
    assert traffic(task, RECIPE, mesh)[1] == "gather"
    (first, _), _ = calls_of(task, RECIPE, mesh)
    assert first.gathered == 2 * 2 * 32 * 8 * 4 / 4  # of keys and values, on a fourth of the rows
    monkeypatch.setattr(posenc_jax.attention, "MOST_GATHERED", first.gathered - 1)
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
