"""Tests runs that end when their model is good enough, also if they were interrupted or killed."""

import dataclasses
import multiprocessing
import signal
import time

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from toy import Line, killed, lines, preempted

from experiments.training.checkpoint import Checkpoints, fingerprint
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


def learned_at(undisturbed):
    return lines(undisturbed[0])[-1]["learned_at"]


@pytest.mark.parametrize("when", ["early", "learned", "last"])
def test_a_preempted_run_ends_as_one_that_was_not(tmp_path, undisturbed, when):
    at = learned_at(undisturbed)
    with preempted({"early": 1, "learned": at, "last": 2 * at}[when]):
        run(tmp_path)
    model, summary = run(tmp_path)
    chex.assert_trees_all_equal(model, undisturbed[1])
    assert told(tmp_path) == told(undisturbed[0]) and summary["steps"] == 2 * at


def test_a_run_that_is_killed_before_a_checkpoint_ends_as_one_that_was_not(tmp_path, undisturbed):
    at = learned_at(undisturbed)
    with killed(Checkpoints, "save", lambda self, step, *_: step == at):
        run(tmp_path)
    chex.assert_trees_all_equal(run(tmp_path)[0], undisturbed[1])
    assert told(tmp_path) == told(undisturbed[0])


# A run that is killed at random moments


# A start is killed within about five steps, see below, so that none comes to the last one.
OFTEN = dataclasses.replace(RECIPE, log_every=1, checkpoint_every=2)


class Begun(Fit):
    """Says when its first step is compiled and under way. Its loss has noise."""

    def __init__(self, begun):
        self.begun, self.first = begun, None

    def batch(self, seed, step, part, parts):
        self.first = self.first or step
        if step > self.first:
            self.begun.set()
        return super().batch(seed, step, part, parts)

    def loss(self, model, x_BD, key):
        return super().loss(model, x_BD + 0.1 * jax.random.normal(key, x_BD.shape), key)


def fit(folder, compiled, begun):
    """Trains in a process of its own, and writes a digest of the model in the end."""
    jax.config.update("jax_compilation_cache_dir", str(compiled))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    model, _ = toy.run(folder, OFTEN, task=Begun(begun))
    (folder / "digest").write_text(fingerprint(model))


@pytest.mark.slow
def test_a_run_that_is_killed_twenty_times_ends_as_one_that_is_not(tmp_path):
    # Its processes are forked from one that has imported what they need, and uses no device.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["jax", "flax", "optax", "orbax.checkpoint", "chex", "rich"])

    def start(folder):
        folder.mkdir(exist_ok=True)
        begun = context.Event()
        process = context.Process(target=fit, args=(folder, tmp_path / "compiled", begun))
        process.start()
        assert begun.wait(300)
        return process

    def finish(folder):
        process = start(folder)
        process.join(300)
        assert process.exitcode == 0
        written = lines(folder)
        return [(line["step"], line["loss"]) for line in written], (folder / "digest").read_text()

    expected = finish(tmp_path / "undisturbed")
    seconds = lines(tmp_path / "undisturbed")[-1]["seconds"] / OFTEN.steps
    for delay in np.random.default_rng().uniform(0, 3 * seconds, 20):
        process = start(tmp_path / "killed")
        time.sleep(delay)
        process.kill()
        process.join(300)
        assert process.exitcode == -signal.SIGKILL
    assert finish(tmp_path / "killed") == expected
    assert [step for step, _ in expected[0]] == list(range(1, OFTEN.steps + 1))
