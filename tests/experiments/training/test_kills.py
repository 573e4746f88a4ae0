"""Tests that a run which is killed at random moments ends as one that nothing disturbs."""

import multiprocessing
import signal
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console
from toy import Line, lines, mesh_of

from experiments.training.checkpoint import fingerprint
from experiments.training.loop import train
from experiments.training.recipe import Recipe

KILLS = 20
# A start is killed within about five steps, see below, so that none comes to the last one.
RECIPE = Recipe(length=1, batch_size=4, steps=120, warmup_steps=2, log_every=1, checkpoint_every=2)


class Fit:
    """Fits a line, as a ``Task``, and says when its first step is compiled and under way."""

    init = Line

    def __init__(self, begun):
        self.begun, self.first = begun, None

    def batch(self, seed, step, part, parts):
        self.first = self.first or step
        if step > self.first:
            self.begun.set()
        return np.random.default_rng([seed, step]).standard_normal((4, 3)).astype(np.float32)

    def loss(self, model, x_BD, key):
        noise = jax.random.normal(key, len(x_BD))
        return jnp.mean((x_BD @ model.slope[...] - x_BD[:, 0] - 0.1 * noise) ** 2)


def fit(folder, compiled, begun):
    """Trains in a process of its own, and writes a digest of the model in the end."""
    jax.config.update("jax_compilation_cache_dir", str(compiled))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    console = Console(quiet=True)
    model, _ = train(Fit(begun), RECIPE, mesh_of(), seed=0, folder=folder, console=console)
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
    seconds = lines(tmp_path / "undisturbed")[-1]["seconds"] / RECIPE.steps
    for delay in np.random.default_rng().uniform(0, 3 * seconds, KILLS):
        process = start(tmp_path / "killed")
        time.sleep(delay)
        process.kill()
        process.join(300)
        assert process.exitcode == -signal.SIGKILL
    assert finish(tmp_path / "killed") == expected
    assert [step for step, _ in expected[0]] == list(range(1, RECIPE.steps + 1))
