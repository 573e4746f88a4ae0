"""Tests runs that end when their model is good enough, also if they were interrupted."""

import chex
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from toy import Line, killed, lines, preempted

from experiments.training.checkpoint import Checkpoints
from experiments.training.recipe import Goal, Recipe

RECIPE = Recipe(
    length=1, batch_size=8, steps=120, learning_rate=0.3, log_every=7, checkpoint_every=11
)
EVERY = 4


class Fit:
    """Fits a line of slope 1, as a ``Task``."""

    init = Line

    def batch(self, seed, step, part, parts):
        del part, parts
        return np.random.default_rng([seed, step]).standard_normal((8, 3)).astype(np.float32)

    def loss(self, model, x_BD, key):
        del key
        return jnp.mean((x_BD @ model.slope[...] - x_BD.sum(axis=1)) ** 2)


def measured(model):
    return {"score": float(1 - jnp.abs(model.slope[...] - 1).max())}


GOAL = Goal(measured, enough=0.8, every=EVERY)


def run(folder, goal=GOAL, seed=0):
    return toy.run(folder, RECIPE, seed, task=Fit(), goal=goal)


def told(folder):
    """Returns what the lines of scored steps say that does not depend on the clock."""
    keys = "step", "loss", "score", "learned_at"
    return [{k: li[k] for k in keys if k in li} for li in lines(folder) if "score" in li]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    return folder, *run(folder)


def test_a_run_goes_on_for_as_many_steps_as_it_took_to_learn(undisturbed):
    folder, _, summary = undisturbed
    scored = told(folder)
    assert [line["step"] for line in scored] == list(range(EVERY, summary["steps"] + 1, EVERY))
    learned_at = next(line["step"] for line in scored if line["score"] >= GOAL.enough)
    assert 1 < learned_at / EVERY < 12, "too soon or too late to test anything"
    assert all(
        line.get("learned_at") == learned_at for line in scored if line["step"] >= learned_at
    )
    assert summary["steps"] == 2 * learned_at < RECIPE.steps
    assert summary["tokens"] == summary["steps"] * RECIPE.batch_size


def test_a_run_that_learns_nothing_ends_at_the_last_step(tmp_path):
    _, summary = run(tmp_path, Goal(measured, enough=1.1, every=30))
    assert summary["steps"] == RECIPE.steps
    assert [line["step"] for line in told(tmp_path)] == [30, 60, 90, 120]
    assert not any("learned_at" in line for line in lines(tmp_path))


@pytest.mark.parametrize("when", ["learned", "last", "killed"])
def test_a_run_that_is_stopped_ends_as_one_that_is_not(tmp_path, undisturbed, when):
    at = lines(undisturbed[0])[-1]["learned_at"]
    stops = {
        "learned": preempted(at),
        "last": preempted(2 * at),
        "killed": killed(Checkpoints, "save", lambda self, step, *_: step == at),
    }
    with stops[when]:
        run(tmp_path)
    model, summary = run(tmp_path)
    chex.assert_trees_all_equal(model, undisturbed[1])
    assert told(tmp_path) == told(undisturbed[0]) and summary["steps"] == 2 * at
