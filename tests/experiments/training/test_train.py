"""Tests training: what is recorded, and runs that stop, resume, fail, or train together."""

import dataclasses
import json

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from rich.console import Console
from toy import RECIPE, SPEC, WINDOWS, killed, killed_at, lines, losses, mesh_of, preempted, run

from experiments.training.checkpoint import Checkpoints
from experiments.training.loop import train_together
from experiments.training.recipe import Recipe
from experiments.training.text import Text, token_losses


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    model, summary = run(folder)
    return folder, model, summary


def test_summary_and_metrics(uninterrupted):
    folder, model, summary = uninterrupted
    assert summary["steps"] == 6 and summary["tokens"] == 6 * 8 * 8
    assert summary["parameters"] == sum(a.size for a in jax.tree.leaves(model))
    first, *_, before, last = recorded = lines(folder)
    assert [line["step"] for line in recorded] == [1, 2, 3, 4, 5, 6]
    assert last["loss"] == summary["final_loss"]
    rates = [float(RECIPE.schedule()(step)) for step in range(6)]
    assert [line["learning_rate"] for line in recorded] == rates and rates[0] == 0
    # From one line to the next there is one step.
    assert last["step_seconds"] == pytest.approx(last["seconds"] - before["seconds"])
    assert 0 < first["memory_bytes"] <= last["memory_bytes"]
    # An untrained model finds all tokens about equally likely.
    assert first["loss"] == pytest.approx(np.log(16), abs=0.1)


@pytest.mark.parametrize("step", [1, 5])
def test_resumes_exactly_where_it_stopped(tmp_path, uninterrupted, step):
    with killed_at(step):
        run(tmp_path)
    model, _ = run(tmp_path)
    chex.assert_trees_all_equal(model, uninterrupted[1])
    assert losses(tmp_path) == losses(uninterrupted[0])


def test_a_finished_run_is_not_trained_again(uninterrupted):
    folder, model, summary = uninterrupted
    before = losses(folder)
    again, same_summary = run(folder)
    chex.assert_trees_all_equal(again, model)
    assert losses(folder) == before
    assert same_summary == summary, "what training cost and reached is no news of this start"


SEEDS = (0, 1, 2)


def run_together(folder, recipe=RECIPE, task=Text, **shape):
    folders = {seed: folder / f"seed{seed}" for seed in SEEDS}
    for one in folders.values():
        one.mkdir(parents=True, exist_ok=True)
    console = Console(quiet=True)
    task = task(recipe, WINDOWS, SPEC)
    return train_together(task, recipe, mesh_of(**shape), folders=folders, console=console)


def latest_steps(folder):
    return [Checkpoints(folder / f"seed{s}" / "checkpoints").latest_step() for s in SEEDS]


def same_losses(folder, other, seeds=SEEDS, rtol=1e-4):
    for seed in seeds:
        one, two = (losses(parent / f"seed{seed}") for parent in (folder, other))
        np.testing.assert_allclose(one, two, rtol=rtol)


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    folder = tmp_path_factory.mktemp("together")
    assert run_together(folder) == {}
    return folder


def test_seeds_that_train_together_are_those_that_train_alone(tmp_path, together):
    seed = SEEDS[-1]
    alone, summary = run(tmp_path, seed=seed)
    folder = together / f"seed{seed}"
    model, again = run(folder, seed=seed)  # trained before: this only reads it
    assert len(losses(folder)) == RECIPE.steps
    np.testing.assert_allclose(losses(folder), losses(tmp_path), rtol=1e-4)
    chex.assert_trees_all_close(*jax.device_get((model, alone)), rtol=2e-3, atol=2e-5)
    assert again.keys() == summary.keys() and again["tokens"] == summary["tokens"]


@pytest.mark.slow
def test_seeds_train_together_on_any_mesh(tmp_path, together):
    assert run_together(tmp_path, fsdp=2, model=2, context=2) == {}
    same_losses(tmp_path, together, rtol=1e-3)


def test_seeds_that_stopped_at_different_steps_go_on(tmp_path, together):
    """A kill may come when some seeds of a step are saved, and others are not."""

    def of_seed_1(self, step, *_):
        return step == 4 and "seed1" in str(self._folder)

    with killed(Checkpoints, "save", of_seed_1):
        run_together(tmp_path)
    assert latest_steps(tmp_path) == [4, 2, 2]
    assert run_together(tmp_path) == {}
    same_losses(tmp_path, together)


class Poisoned(Text):
    """Gives seed 1 a loss that is not finite at step 3."""

    def batch(self, seed, step, *process):
        tokens = super().batch(seed, step, *process)
        return {"tokens": tokens, "is_bad": np.full(len(tokens), seed == 1 and step == 3)}

    def loss(self, model, batch, key):
        factor = jnp.where(batch["is_bad"].any(), jnp.nan, 1.0)
        return super().loss(model, batch["tokens"], key) * factor


def test_a_seed_that_is_not_finite_takes_no_other_with_it(tmp_path, together):
    failures = run_together(tmp_path, task=Poisoned)
    assert list(failures) == [1]
    assert "loss nan" in str(failures[1]) and "at step 3" in str(failures[1])
    assert latest_steps(tmp_path) == [6, 2, 6]
    same_losses(tmp_path, together, seeds=(0, 2))


def test_time_and_loss_are_those_of_all_starts(tmp_path):
    recipe = dataclasses.replace(RECIPE, log_every=100)  # only saved steps are logged
    with killed_at(4):
        run(tmp_path, recipe)
    line = lines(tmp_path)[-1]
    assert line["step"] == 2
    (tmp_path / "metrics.jsonl").write_text(json.dumps(line | {"seconds": 1000.0}) + "\n")
    _, summary = run(tmp_path, recipe)
    assert 1000 < summary["seconds"] < 1100
    assert [line["step"] for line in lines(tmp_path)] == [2, 4, 6]


@pytest.mark.parametrize("left", [b"\xff\xfe\n", b'{"step": "x"}\n'])
def test_a_run_that_has_lost_its_metrics_is_not_resumed(left, tmp_path):
    """Else its seconds and its curve would cover only the steps after the stop."""
    with preempted(3):
        run(tmp_path)
    (tmp_path / "metrics.jsonl").write_bytes(left)
    with pytest.raises(ValueError, match=r"metrics\.jsonl"):
        run(tmp_path)


def test_the_mean_loss_is_of_all_steps_since_a_regular_checkpoint(tmp_path, uninterrupted):
    """Also where the interval of checkpoints changes between two starts."""
    with preempted(3):
        run(tmp_path, dataclasses.replace(RECIPE, checkpoint_every=2))
    run(tmp_path, dataclasses.replace(RECIPE, checkpoint_every=6))
    after_2 = losses(uninterrupted[0])[2:]
    assert lines(tmp_path)[-1]["mean_loss"] == pytest.approx(np.mean(after_2), rel=1e-5)


def test_preemption_saves_the_step_it_stopped_at(tmp_path, uninterrupted):
    with preempted(3):
        run(tmp_path)
    assert Checkpoints(tmp_path / "checkpoints").latest_step() == 3
    model, _ = run(tmp_path)
    chex.assert_trees_all_equal(model, uninterrupted[1])


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_checkpoint(tmp_path, monkeypatch):
    import experiments.training.text as module

    def poisoned(model, tokens, key):
        return token_losses(model, tokens, key) * jnp.where(tokens[0, 0] >= 0, jnp.nan, 1.0)

    recipe = Recipe(length=8, batch_size=8, steps=4, warmup_steps=2, checkpoint_every=2)
    run(tmp_path, recipe)
    longer = Recipe(length=8, batch_size=8, steps=8, warmup_steps=2, checkpoint_every=2, beta2=0.9)
    monkeypatch.setattr(module, "token_losses", poisoned)
    with pytest.raises(FloatingPointError, match=r"train\.learning_rate"):
        run(tmp_path, longer)
    assert Checkpoints(tmp_path / "checkpoints").latest_step() == 4


def test_a_state_that_is_not_finite_is_not_saved(tmp_path, monkeypatch):
    """The loss of a step is of the parameters before its update, and can be finite all the same."""
    adamw = optax.adamw

    def exploding(*arguments, **options):
        to_infinity = optax.stateless(lambda updates, _: jax.tree.map(lambda x: x / 0, updates))
        return optax.chain(adamw(*arguments, **options), to_infinity)

    monkeypatch.setattr(optax, "adamw", exploding)
    folder = tmp_path / "exploding"
    with pytest.raises(FloatingPointError, match="step 1 model/"):
        run(folder, dataclasses.replace(RECIPE, steps=1, warmup_steps=0))
    assert Checkpoints(folder / "checkpoints").latest_step() is None
