"""Tests runs in phases: what a phase changes, what it keeps, and what is refused."""

import dataclasses
from unittest import mock

import chex
import common
import jax
import pytest
import toy
from ml_collections import FrozenConfigDict

from experiments.training import text
from experiments.training.checkpoint import Checkpoints
from experiments.training.cost import mean_flops, step_flops
from experiments.training.loop import abstract_states, lower_step
from experiments.training.step import in_phases
from experiments.training.text import Text
from posenc_jax.encodings.rotary.frequencies.yarn import YaRNFrequencies

LONGER = {"length": 32, "encoding": {"name": "yarn", "factor": "ratio"}, "window": 16}
PLAN = (0.5, {"window": 4, "encoding": {"base": 5e4}}), (0.5, LONGER)


def recipe_of(*phases, **changes):
    return dataclasses.replace(toy.RECIPE, phases=phases, **changes)


def task_of(recipe, scheme="rope", **model):
    sizes = toy.SPEC.model.to_dict() | dict(num_layers=2) | model
    spec = FrozenConfigDict({"encoding": {"name": scheme}, "model": sizes})
    return Text(recipe, toy.WINDOWS, spec)


def run(folder, recipe, **model):
    return toy.run(folder, recipe, task=task_of(recipe, **model))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Returns the folder of a run in two phases, its model and its summary."""
    folder, shapes, usual = tmp_path_factory.mktemp("whole"), [], text.token_losses

    def noting(model, tokens_BL, *rest):
        shapes.append(tokens_BL.shape)
        return usual(model, tokens_BL, *rest)

    with mock.patch.object(text, "token_losses", noting):
        model, summary = run(folder, recipe_of(*PLAN))
    assert shapes == [(8, 9), (2, 33)], "each phase is compiled once"
    return folder, model, summary


def test_a_phase_has_its_steps_and_as_many_tokens_a_step():
    recipe = recipe_of((0.25, {}), (0.5, {"length": 16}), (0.25, {"length": 64}), steps=10)
    assert recipe.steps_of_parts == [2, 6, 2]
    assert [recipe.phase_at(step) for step in (1, 2, 3, 8, 9, 10, 11)] == [0, 0, 1, 1, 2, 2, 2]
    sizes = [(one.batch_size, one.length) for one in map(recipe.in_phase, range(3))]
    assert sizes == [(8, 8), (4, 16), (1, 64)]
    assert toy.RECIPE.steps_of_parts == [6] and toy.RECIPE.phase_at(6) == 0


def test_each_phase_has_its_encoding_and_its_window(whole):
    _, model, summary = whole
    encoding, window = model.layer_at(0)
    assert encoding.frequencies == YaRNFrequencies(8, factor=4) and window == 16
    first = task_of(recipe_of(*PLAN)).init(jax.random.key(0)).layer_at(1)
    assert first[0].base == 5e4 and encoding.base == 1e4 and first[1] == 4
    assert summary["tokens"] == 6 * 64


def test_phases_that_change_nothing_are_the_run_without_them(tmp_path):
    """The optimizer, the schedule, the batches and the randomness go on."""
    split, _ = run(tmp_path / "split", recipe_of((1 / 3, {}), (2 / 3, {})))
    plain, _ = run(tmp_path / "plain", toy.RECIPE)
    chex.assert_trees_all_equal(split, plain)


@pytest.mark.parametrize("step", [3, 4])
def test_a_run_resumes_to_the_bit_in_each_phase_and_between_them(tmp_path, whole, step):
    with toy.preempted(step):
        run(tmp_path, recipe_of(*PLAN))
    assert Checkpoints(tmp_path / "checkpoints").latest_step() == step
    model, _ = run(tmp_path, recipe_of(*PLAN))
    chex.assert_trees_all_equal(model, whole[1])
    assert toy.losses(tmp_path) == toy.losses(whole[0])


def test_what_a_run_costs_is_the_mean_of_its_phases():
    recipe = recipe_of((1 / 3, {}), (2 / 3, {"length": 16}))
    tasks = in_phases(task_of(recipe), recipe)
    short, long = (step_flops(task, task.batch(0, 1, 0, 1)) for task in tasks)
    assert short < long and mean_flops(tasks, recipe) == pytest.approx((short + 2 * long) / 3)
    rows = jax.tree.leaves(lower_step(task_of(recipe), recipe, toy.mesh_of()).in_avals)
    assert (4, 17) in {row.shape for row in rows}, "the last phase needs the most memory"


@pytest.mark.parametrize(
    ("phases", "why"),
    [
        ([(0.5, {})], r"train\.phases"),
        ([(0.5, {}), (0.5, {"lenght": 16})], r"train\.phases\[1\]='lenght' .*'length'"),
        ([(0.5, {}), (0.5, {"length": 24})], r"train\.phases\[1\]\.length=24"),
        ([(0.99, {}), (0.01, {})], r"train\.phases\[1\] has the share 0\.01"),
    ],
)
def test_phases_that_cannot_be_are_refused_by_their_name(phases, why):
    common.refuses(why, lambda: recipe_of(*phases))


def test_parameters_that_do_not_fit_are_refused_by_their_name():
    recipe = recipe_of((0.5, {}), (0.5, {"encoding": {"name": "fire"}}))
    task = task_of(recipe)
    common.refuses(
        r"train\.phases\[1\] needs other arrays .*encodings/0",
        lambda: abstract_states(task, recipe, toy.mesh_of()),
    )
