"""Tests training: what is recorded, and runs that stop, resume or fail."""

import dataclasses
import json
import shutil

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from toy import RECIPE, killed_at, lines, losses, preempted, run

from experiments.training.checkpoint import Checkpoints
from experiments.training.recipe import Recipe
from experiments.training.text import token_losses


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    model, summary = run(folder)
    return folder, model, summary


def test_summary_and_metrics(uninterrupted):
    folder, model, summary = uninterrupted
    assert summary["steps"] == 6 and summary["tokens"] == 6 * 8 * 8
    assert summary["parameters"] == sum(a.size for a in jax.tree.leaves(model))
    first, *_, last = recorded = lines(folder)
    assert [line["step"] for line in recorded] == [1, 2, 3, 4, 5, 6]
    assert last["loss"] == summary["final_loss"]
    rates = [float(RECIPE.schedule()(step)) for step in range(6)]
    assert [line["learning_rate"] for line in recorded] == rates and rates[0] == 0
    # An untrained model finds all tokens about equally likely.
    assert first["loss"] == pytest.approx(np.log(16), abs=0.1)


@pytest.mark.parametrize(("how", "saved"), [(killed_at(5), 4), (preempted(3), 3)])
def test_resumes_exactly_where_it_stopped(tmp_path, uninterrupted, how, saved):
    with how:
        run(tmp_path)
    assert Checkpoints(tmp_path / "checkpoints").latest_step() == saved
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


def test_a_run_that_has_lost_its_metrics_is_not_resumed(uninterrupted, tmp_path):
    """Else its seconds and its curve would cover only the steps after the stop."""
    shutil.copytree(uninterrupted[0], tmp_path, dirs_exist_ok=True)
    (tmp_path / "metrics.jsonl").write_bytes(b"\xff\xfe\n")
    with pytest.raises(ValueError, match=r"metrics\.jsonl"):
        run(tmp_path)


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
