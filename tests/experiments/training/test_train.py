"""Tests training: the step, its sharding, and stopping and resuming at any moment."""

import dataclasses
import errno
import functools
import gc
import io
import json
import os
import re
import resource
import shutil
import sys
import tempfile
import types
from pathlib import Path

import chex
import common
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from flax import nnx
from jax.sharding import AxisType
from ml_collections import FrozenConfigDict
from rich.console import Console
from runs import cut_off, flipped

from experiments import preemption
from experiments.pretrained.trained import load_run
from experiments.results.record import Metrics, open_run
from experiments.studies.multimodal.model import Decoder
from experiments.studies.multimodal.story import TimedViT
from experiments.training.checkpoint import Checkpoints
from experiments.training.cost import PEAK
from experiments.training.data import Corpus, window_index
from experiments.training.host import peak_memory
from experiments.training.loop import train, train_together
from experiments.training.mesh import AXES, batch_sharding, make_mesh, path_name, state_shardings
from experiments.training.parameters import parameter_count
from experiments.training.recipe import RULES, Recipe, decays
from experiments.training.step import initial_state, train_step
from experiments.training.text import Text, token_losses
from posenc_jax import Encoding

SPEC = FrozenConfigDict(
    {
        "encoding": {"name": "alibi"},
        "model": {"vocab_size": 16, "model_dim": 16, "num_layers": 2, "num_heads": 4},
    }
)
RECIPE = Recipe(length=8, batch_size=8, steps=6, warmup_steps=2, log_every=1, checkpoint_every=2)
TASK = Text(RECIPE, None, SPEC)  # with no windows it draws no batches


def test_the_learning_rate_of_a_line_is_that_of_its_step(tmp_path, windows):
    recipe = Recipe(length=8, batch_size=8, steps=4, warmup_steps=2, log_every=1)
    run(tmp_path, windows, recipe)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    rates = [float(recipe.schedule()(step)) for step in range(4)]
    assert [line["learning_rate"] for line in lines] == rates and rates[0] == 0


def toy_windows():
    tokens = np.random.default_rng(0).integers(0, 16, 4000).astype(np.uint8)
    offsets, splits = np.array([0, 1500, 4000]), np.zeros(2, np.int8)
    corpus = Corpus("toy", tokens, offsets, splits, 16, 1.0, "digest")
    return window_index(corpus, "train", RECIPE.length)


@pytest.fixture(scope="module")
def windows():
    return toy_windows()


def mesh_of(**shape):
    """Returns a mesh of all devices, or of one where no shape is given."""
    if shape:
        return make_mesh(**shape)
    kinds = (AxisType.Auto,) * len(AXES)
    return jax.make_mesh((1,) * len(AXES), AXES, axis_types=kinds, devices=jax.devices()[:1])


def run(folder, windows, recipe=RECIPE, seed=0, spec=SPEC, **shape):
    folder.mkdir(parents=True, exist_ok=True)
    console, mesh = Console(file=io.StringIO()), mesh_of(**shape)
    task = Text(recipe, windows, spec)
    return train(task, recipe, mesh, seed=seed, folder=folder, console=console)


def losses(folder):
    return [
        json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()
    ]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, windows):
    folder = tmp_path_factory.mktemp("uninterrupted")
    model, summary = run(folder, windows)
    return folder, model, summary


def test_summary_and_metrics(uninterrupted):
    folder, model, summary = uninterrupted
    assert summary["steps"] == 6 and summary["tokens"] == 6 * 8 * 8
    assert summary["parameters"] == sum(a.size for a in jax.tree.leaves(model))
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert lines[-1]["loss"] == summary["final_loss"]
    # From one line to the next there is one step.
    assert lines[-1]["step_seconds"] == pytest.approx(lines[-1]["seconds"] - lines[-2]["seconds"])
    assert 0 < lines[0]["memory_bytes"] <= lines[-1]["memory_bytes"]
    # An untrained model finds all tokens about equally likely.
    assert lines[0]["loss"] == pytest.approx(np.log(16), abs=0.1)


def test_learns_what_repeats(tmp_path):
    tokens = np.tile(np.arange(16), 250).astype(np.uint8)
    corpus = Corpus("cycle", tokens, np.array([0, 4000]), np.zeros(1, np.int8), 16, 1.0, "digest")
    recipe = Recipe(length=8, batch_size=8, steps=60, learning_rate=1e-2, warmup_steps=5)
    _, summary = run(tmp_path, window_index(corpus, "train", 8), recipe)
    assert summary["final_loss"] < np.log(16) / 4


class StopError(Exception):
    pass


def interrupt_at(step, monkeypatch):
    """Makes training die while it records ``step``, as a kill would: nothing is cleaned up."""
    write = Metrics.write

    def failing(self, **values):
        if values["step"] == step:
            raise StopError
        write(self, **values)

    monkeypatch.setattr(Metrics, "write", failing)


def test_a_trace_and_the_share_of_the_peak(tmp_path, windows, monkeypatch):
    """A made-up peak stands in for that of a device that has one."""
    monkeypatch.setitem(PEAK, "cpu", 1e-3)
    run(tmp_path, windows, dataclasses.replace(RECIPE, steps=3, profile_steps="1:2"), data=8)
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))
    for line in (tmp_path / "metrics.jsonl").read_text().splitlines():
        numbers = json.loads(line)
        step = (numbers["step"] / numbers["seconds"]) / numbers["mfu"]
        # Eight devices, and two layers of width 16 over 64 tokens.
        products = 2 * (4 * 16**2 + 3 * 16 * 64 + 2 * 8 * 16) + 16 * 16
        assert step == pytest.approx(8 * 1e9 / (3 * 2 * 64 * products))


def test_memory_is_that_of_the_device_that_held_most(monkeypatch):
    """A CPU says nothing of its memory; these stand in for devices that do."""
    held = [{"peak_bytes_in_use": 7}, {"peak_bytes_in_use": 9}, None]
    devices = [types.SimpleNamespace(memory_stats=lambda each=each: each) for each in held]
    monkeypatch.setattr(jax, "local_devices", lambda: devices)
    assert peak_memory() == 9


@pytest.mark.parametrize("step", [1, 5])
def test_resumes_exactly_where_it_stopped(tmp_path, windows, uninterrupted, monkeypatch, step):
    with monkeypatch.context() as patch:
        interrupt_at(step, patch)
        with pytest.raises(StopError):
            run(tmp_path, windows)
    model, _ = run(tmp_path, windows)
    chex.assert_trees_all_equal(model, uninterrupted[1])
    assert losses(tmp_path) == losses(uninterrupted[0])


def test_a_finished_run_is_not_trained_again(uninterrupted, windows):
    folder, model, summary = uninterrupted
    before = losses(folder)
    again, same_summary = run(folder, windows)
    chex.assert_trees_all_equal(again, model)
    assert losses(folder) == before
    assert same_summary == summary, "what training cost and reached is no news of this start"


SEEDS = (0, 1, 2)


def run_together(folder, windows, recipe=RECIPE, task=Text, **shape):
    folders = {seed: folder / f"seed{seed}" for seed in SEEDS}
    for each in folders.values():
        each.mkdir(parents=True, exist_ok=True)
    console = Console(file=io.StringIO())
    task = task(recipe, windows, SPEC)
    return train_together(task, recipe, mesh_of(**shape), folders=folders, console=console)


@pytest.fixture(scope="module")
def together(tmp_path_factory, windows):
    folder = tmp_path_factory.mktemp("together")
    assert run_together(folder, windows) == {}
    return folder


def test_seeds_that_train_together_are_those_that_train_alone(tmp_path, windows, together):
    seed = SEEDS[-1]
    alone, summary = run(tmp_path, windows, seed=seed)
    folder = together / f"seed{seed}"
    model, found = run(folder, windows, seed=seed)  # trained before: this only reads it
    assert len(losses(folder)) == RECIPE.steps
    np.testing.assert_allclose(losses(folder), losses(tmp_path), rtol=1e-4)
    chex.assert_trees_all_close(*jax.device_get((model, alone)), rtol=2e-3, atol=2e-5)
    assert found.keys() == summary.keys() and found["tokens"] == summary["tokens"]


@pytest.mark.slow
def test_seeds_train_together_on_any_mesh(tmp_path, windows, together):
    assert run_together(tmp_path, windows, fsdp=2, model=2, context=2) == {}
    for seed in SEEDS:
        folder = f"seed{seed}"
        np.testing.assert_allclose(losses(tmp_path / folder), losses(together / folder), rtol=1e-3)


def test_seeds_that_stopped_at_different_steps_go_on(tmp_path, windows, together, monkeypatch):
    """A kill may come when some seeds of a step are saved, and others are not."""
    save = Checkpoints.save

    def failing(self, step, state, loss):
        if step == 4 and "seed1" in str(self._folder):
            raise StopError
        save(self, step, state, loss)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", failing)
        with pytest.raises(StopError):
            run_together(tmp_path, windows)
    saved = [Checkpoints(tmp_path / f"seed{s}" / "checkpoints").latest_step() for s in SEEDS]
    assert saved == [4, 2, 2]
    assert run_together(tmp_path, windows) == {}
    for seed in SEEDS:
        folder = f"seed{seed}"
        np.testing.assert_allclose(losses(tmp_path / folder), losses(together / folder), rtol=1e-4)


class Poisoned(Text):
    """Gives seed 1 a loss that is not finite at step 3."""

    def batch(self, seed, step, *process):
        tokens = super().batch(seed, step, *process)
        return {"tokens": tokens, "is_bad": np.full(len(tokens), seed == 1 and step == 3)}

    def loss(self, model, batch, key):
        factor = jnp.where(batch["is_bad"].any(), jnp.nan, 1.0)
        return super().loss(model, batch["tokens"], key) * factor


def test_a_seed_that_is_not_finite_takes_no_other_with_it(tmp_path, windows, together):
    failures = run_together(tmp_path, windows, task=Poisoned)
    assert list(failures) == [1]
    assert "loss nan" in str(failures[1]) and "at step 3" in str(failures[1])
    saved = [Checkpoints(tmp_path / f"seed{s}" / "checkpoints").latest_step() for s in SEEDS]
    assert saved == [6, 2, 6]
    for seed in (0, 2):
        folder = f"seed{seed}"
        np.testing.assert_allclose(losses(tmp_path / folder), losses(together / folder), rtol=1e-4)


def test_time_and_loss_are_those_of_all_starts(tmp_path, windows, monkeypatch):
    recipe = dataclasses.replace(RECIPE, log_every=100)  # only saved steps are logged
    with monkeypatch.context() as patch:
        interrupt_at(4, patch)
        with pytest.raises(StopError):
            run(tmp_path, windows, recipe)
    metrics = tmp_path / "metrics.jsonl"
    line = json.loads(metrics.read_text().splitlines()[-1])
    assert line["step"] == 2
    metrics.write_text(json.dumps(line | {"seconds": 1000.0}) + "\n")
    _, summary = run(tmp_path, windows, recipe)
    assert 1000 < summary["seconds"] < 1100
    assert [json.loads(x)["step"] for x in metrics.read_text().splitlines()] == [2, 4, 6]


def test_preemption_saves_the_step_it_stopped_at(tmp_path, windows, uninterrupted, monkeypatch):
    with monkeypatch.context() as patch:
        answers = iter([False, False, True])
        patch.setattr(preemption, "requested", lambda: next(answers))
        with pytest.raises(preemption.PreemptedError, match="step 3"):
            run(tmp_path, windows)
    assert Checkpoints(tmp_path / "checkpoints").latest_step() == 3
    model, _ = run(tmp_path, windows)
    chex.assert_trees_all_equal(model, uninterrupted[1])


class Turning(Text):
    """Draws what repeats, and from step 9 on other tokens at random, so that the loss rises."""

    def batch(self, seed, step, part, parts):
        rows = np.random.default_rng(step).integers(0, 16, (8, 9))
        if step < 9:
            rows = (rows[:, :1] + np.arange(9)) % 16
        return np.split(rows.astype(np.uint8), parts)[part]


@pytest.mark.parametrize("stop", [None, 5], ids=["undisturbed", "preempted"])
def test_the_checkpoint_with_the_lowest_loss_is_kept_beside_the_last(tmp_path, monkeypatch, stop):
    """A preempted run has the same best checkpoint, and goes on from its last one."""
    recipe = dataclasses.replace(RECIPE, steps=16, checkpoint_every=4, learning_rate=1e-2)
    folder, task, mesh = tmp_path / "run", Turning(recipe, None, SPEC), mesh_of()
    config = SPEC.to_dict() | {"train": dataclasses.asdict(recipe)}
    open_run(folder, config)

    def go_on():
        console = Console(file=io.StringIO())
        return train(task, recipe, mesh, seed=0, folder=folder, console=console)

    if stop:
        with monkeypatch.context() as patch:
            answers = iter([False] * (stop - 1) + [True])
            patch.setattr(preemption, "requested", lambda: next(answers))
            with pytest.raises(preemption.PreemptedError, match=f"step {stop}"):
                go_on()
    model, summary = go_on()
    assert summary["best_step"] == 8
    saved = {int(path.name) for path in (folder / "checkpoints").iterdir()}
    assert saved == {8, 12, 16}
    means = np.mean(np.reshape(losses(folder), (4, 4)), 1)
    kept = json.loads((folder / "checkpoints/8/metrics/metrics").read_text())
    assert means.argmin() == 1 and kept["loss"] == pytest.approx(means[1], rel=1e-12)
    assert int(load_run(folder / "best")[0].step) == 8
    state, _ = load_run(folder)
    assert int(state.step) == 16
    chex.assert_trees_all_equal(state.model, jax.device_put(model, jax.devices()[0]))
    flipped(next((folder / "checkpoints/8").glob("default/d/*")))
    with pytest.raises(ValueError, match=r"best checkpoint in .*, of step 8, is damaged"):
        load_run(folder / "best")


SMALL = {"vocab_size": 16, "model_dim": 8, "mlp_dim": 8, "num_layers": 1, "num_heads": 2}
SMALL_SPEC = FrozenConfigDict({"encoding": {"name": "alibi"}, "model": SMALL})
KEPT = "checkpoint_jax_{}"


def keep_checkpoint():
    """Keeps the checkpoint of step 4 of a run, and all its losses, for the next test.

    It was called under each version of JAX, by ``PYTHONPATH=tests:tests/experiments/training
    python -c "import test_train; test_train.keep_checkpoint()"``.
    """
    version = ".".join(jax.__version__.split(".")[:2])
    with tempfile.TemporaryDirectory() as name:
        run(Path(name), toy_windows(), spec=SMALL_SPEC)
        shutil.rmtree(Path(name, "checkpoints/6"))
        for path in Path(name).rglob("commit_success.txt"):  # which has the name of this folder
            path.unlink()
        shutil.make_archive(str(common.GOLDEN / KEPT.format(version)), "zip", name)


@pytest.mark.parametrize("version", ["0.10", "0.12"])
def test_a_checkpoint_of_another_version_of_jax_goes_on(tmp_path, windows, version):
    shutil.unpack_archive(common.GOLDEN / f"{KEPT.format(version)}.zip", tmp_path)
    metrics, expected = tmp_path / "metrics.jsonl", losses(tmp_path)
    kept = metrics.read_text().splitlines()[:4]
    run(tmp_path, windows, spec=SMALL_SPEC)
    assert metrics.read_text().splitlines()[:4] == kept, "trained again from the start"
    np.testing.assert_allclose(losses(tmp_path), expected, rtol=1e-6)


def test_a_half_written_checkpoint_is_ignored(tmp_path, windows, uninterrupted, monkeypatch):
    with monkeypatch.context() as patch:
        interrupt_at(5, patch)
        with pytest.raises(StopError):
            run(tmp_path, windows)
    half = tmp_path / "checkpoints" / "6.orbax-checkpoint-tmp-1"
    half.mkdir()
    (half / "default").write_text("cut off")
    model, _ = run(tmp_path, windows)
    chex.assert_trees_all_equal(model, uninterrupted[1])


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_checkpoint(
    tmp_path, windows, monkeypatch
):
    import experiments.training.text as module

    def poisoned(model, tokens, key):
        return token_losses(model, tokens, key) * jnp.where(tokens[0, 0] >= 0, jnp.nan, 1.0)

    recipe = Recipe(length=8, batch_size=8, steps=4, warmup_steps=2, checkpoint_every=2)
    run(tmp_path, windows, recipe)
    longer = Recipe(length=8, batch_size=8, steps=8, warmup_steps=2, checkpoint_every=2, beta2=0.9)
    monkeypatch.setattr(module, "token_losses", poisoned)
    with pytest.raises(FloatingPointError, match=r"step 5.*of step 4.*train\.learning_rate"):
        run(tmp_path, windows, longer)
    assert Checkpoints(tmp_path / "checkpoints").latest_step() == 4


def test_a_state_that_is_not_finite_is_not_saved(tmp_path, windows, monkeypatch):
    """The loss of a step is of the parameters before its update, and can be finite all the same."""
    adamw = optax.adamw

    def exploding(*arguments, **options):
        to_infinity = optax.stateless(lambda updates, _: jax.tree.map(lambda x: x / 0, updates))
        return optax.chain(adamw(*arguments, **options), to_infinity)

    monkeypatch.setattr(optax, "adamw", exploding)
    folder = tmp_path / "exploding"
    with pytest.raises(
        FloatingPointError, match=r"after step 1 model/.* is not finite .*not saved"
    ):
        run(folder, windows, dataclasses.replace(RECIPE, steps=1, warmup_steps=0))
    assert Checkpoints(folder / "checkpoints").latest_step() is None


@pytest.mark.parametrize("is_found_later", [False, True])
def test_a_full_disk_ends_the_run_with_a_sentence_and_the_last_good_checkpoint(
    tmp_path, windows, uninterrupted, monkeypatch, is_found_later
):
    """Orbax writes in the background, so that a failure shows when the next checkpoint is due.

    A limit on the size of files stands in for the full disk then: TensorStore fails in earnest.
    """
    save, (usual, most) = Checkpoints.save, resource.getrlimit(resource.RLIMIT_FSIZE)

    def failing(self, step, state, loss):
        if step == 4 and is_found_later:
            self._manager.wait_until_finished()  # that of step 2 is whole
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, most))
        elif step == 4:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        save(self, step, state, loss)

    reason = "File too large" if is_found_later else "No space left on device"
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", failing)
        try:
            with pytest.raises(OSError, match=rf"{reason}.*last good checkpoint is of step 2"):
                run(tmp_path, windows)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (usual, most))
    assert Checkpoints(tmp_path / "checkpoints").latest_step() == 2
    model, _ = run(tmp_path, windows)
    chex.assert_trees_all_equal(model, uninterrupted[1])
    assert losses(tmp_path) == losses(uninterrupted[0])


def renamed(path):
    """Alters one bit of the name of an array, which then has the name of another."""
    before, after = (b'"key": "model/layers/%d' % number for number in (0, 1))
    assert before in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(before, after, 1))


def emptied(folder):
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def of_step_4(folder):
    shutil.rmtree(folder)
    shutil.copytree(folder.with_name("4"), folder)


def of_another_run(path):
    path.write_text(re.sub(r'"run": \w+', '"run": "0123"', path.read_text()))


DAMAGE = {
    "a name": ("default/_METADATA", renamed),
    "everything": ("", emptied),
    "numbers": ("default/**/d/*", flipped),
    "half of the numbers": ("default/**/d/*", cut_off),
    "no numbers": ("default/**/d/*", Path.unlink),
    "manifest": ("default/manifest.ocdbt", flipped),
    "no manifest": ("default/manifest.ocdbt", Path.unlink),
    "metadata": ("default/_METADATA", cut_off),
    "metadata of arrays": ("default/array_metadatas/process_0", cut_off),
    "nothing": ("default", shutil.rmtree),
    "a loss": ("metrics/metrics", lambda path: path.write_text('{"loss": 0.5}')),
    "half of a loss": ("metrics/metrics", cut_off),
    "no loss": ("metrics", shutil.rmtree),
    "another step": ("", of_step_4),
    "another run": ("_CHECKPOINT_METADATA", of_another_run),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_checkpoint_is_put_aside_for_the_one_before(tmp_path, uninterrupted, kind):
    shutil.copytree(uninterrupted[0] / "checkpoints", tmp_path / "checkpoints")
    pattern, damage = DAMAGE[kind]
    step = tmp_path / "checkpoints/6"
    for path in sorted(step.glob(pattern)) if pattern else [step]:
        damage(path)
    make = functools.partial(common.text_state, spec=SPEC, recipe=RECIPE)
    step, state = Checkpoints(tmp_path / "checkpoints").newest(
        jax.eval_shape(make, jax.random.key(0))
    )
    assert step == 4 and int(state.step) == 4
    assert (tmp_path / "damaged_step_6").exists()
    assert Checkpoints(tmp_path / "checkpoints").latest_step() == 4


def test_metadata_that_orbax_refuses_do_not_end_the_run(tmp_path, uninterrupted):
    shutil.copytree(uninterrupted[0] / "checkpoints", tmp_path / "checkpoints")
    path = tmp_path / "checkpoints/6/_CHECKPOINT_METADATA"
    path.write_text(path.read_text().replace("item_handlers", "item_handlerr"))
    make = functools.partial(common.text_state, spec=SPEC, recipe=RECIPE)
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    step, state = checkpoints.newest(jax.eval_shape(make, jax.random.key(0)))
    assert step == int(state.step) == 6


def test_a_damaged_checkpoint_prints_nothing_of_what_orbax_leaves_behind(
    tmp_path, uninterrupted, monkeypatch
):
    """Reads that had not ended would each print a traceback when they are collected."""

    class Read:
        def __init__(self):
            self.itself = self

        def __del__(self):
            raise RuntimeError("a read has not ended")

    restore = ocp.CheckpointManager.restore

    def damaged(manager, step, **rest):
        if step == 6:
            Read()
            raise ValueError("damaged")
        return restore(manager, step, **rest)

    monkeypatch.setattr(ocp.CheckpointManager, "restore", damaged)
    shutil.copytree(uninterrupted[0] / "checkpoints", tmp_path / "checkpoints")
    printed = []
    monkeypatch.setattr(sys, "unraisablehook", lambda each: printed.append(str(each.exc_value)))
    make = functools.partial(common.text_state, spec=SPEC, recipe=RECIPE)
    state = jax.eval_shape(make, jax.random.key(0))
    assert Checkpoints(tmp_path / "checkpoints").newest(state)[0] == 4
    gc.collect()
    assert "a read has not ended" not in printed


def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one(tmp_path, windows, uninterrupted):
    shutil.copytree(uninterrupted[0], tmp_path, dirs_exist_ok=True)
    for path in (tmp_path / "checkpoints/6").glob("default/**/d/*"):
        flipped(path)
    model, _ = run(tmp_path, windows)
    chex.assert_trees_all_equal(model, uninterrupted[1])
    assert losses(tmp_path) == losses(uninterrupted[0])


def test_where_every_checkpoint_is_damaged_it_is_said(tmp_path, windows, uninterrupted):
    shutil.copytree(uninterrupted[0], tmp_path, dirs_exist_ok=True)
    for step in (4, 6):
        shutil.rmtree(tmp_path / f"checkpoints/{step}/default")
    with pytest.raises(ValueError, match=r"every checkpoint in .* was damaged.*\[6, 4\]"):
        run(tmp_path, windows)


@pytest.mark.parametrize(
    "changes,message",
    [
        ({"num_layers": 1}, "layers/1/.* and 6 more.*--workdir"),
        ({"mlp_dim": 32}, r"mlp/down/kernel was 'float32 \(64, 16\)' and is now 'float32 \(32, 16"),
        ({"param_dtype": "bfloat16"}, "was 'float32 .*' and is now 'bfloat16 "),
    ],
)
def test_a_checkpoint_of_another_model_is_refused(tmp_path, changes, message):
    """Other types are refused too, which Orbax would cast without a word."""
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, common.text_state(jax.random.key(0), SPEC, RECIPE).model)
    checkpoints.close()
    spec = FrozenConfigDict(SPEC.to_dict() | {"model": SPEC.model.to_dict() | changes})
    other = jax.eval_shape(lambda: common.text_state(jax.random.key(0), spec, RECIPE).model)
    with pytest.raises(ValueError, match=message):
        Checkpoints(tmp_path).newest(other)


@pytest.mark.parametrize("scan", [False, True])
def test_parameters_and_optimizer_moments_are_cut_over_model_and_fsdp(scan):
    """One rule serves blocks that are written out and blocks that are stacked."""
    mesh = make_mesh(fsdp=2, model=4)
    spec = FrozenConfigDict(SPEC.to_dict() | {"model": SPEC.model.to_dict() | {"scan": scan}})
    init = functools.partial(common.text_state, spec=spec, recipe=RECIPE)
    shardings = state_shardings(jax.eval_shape(init, jax.random.key(0)), mesh)
    state = jax.jit(init, out_shardings=shardings)(jax.random.key(0))
    moments = state.opt_state[1][0]
    stack = (2,) * scan
    for model in (state.model, moments.mu, moments.nu):
        block = model.layers[0].block
        for kernel, whole, part in (
            (block.attention.q.kernel, (16, 16), (8, 4)),
            (block.attention.out.kernel, (16, 16), (4, 8)),
            (block.mlp.up.kernel, (16, 64), (8, 16)),
            (block.mlp.down.kernel, (64, 16), (16, 8)),
        ):
            assert kernel.shape == (*stack, *whole)
            assert kernel[...].addressable_shards[0].data.shape == (*stack, *part)
        assert model.embedding[...].addressable_shards[0].data.shape == (4, 8)
        norm = block.attention_norm.scale[...]
        assert norm.addressable_shards[0].data.shape == norm.shape


@pytest.mark.slow
def test_a_step_is_the_same_with_and_without_jit():
    one_layer = SPEC.model.to_dict() | {"num_layers": 1}
    spec = FrozenConfigDict({"encoding": {"name": "t5"}, "model": one_layer})
    state = common.text_state(jax.random.key(0), spec, RECIPE)
    tokens = jax.random.randint(jax.random.key(1), (8, 9), 0, 16)
    step = functools.partial(train_step, loss=TASK.loss, recipe=RECIPE)
    compiled = jax.jit(step)(state, tokens, jax.random.key(2))
    with chex.fake_jit():
        interpreted = jax.jit(step)(state, tokens, jax.random.key(2))
    chex.assert_trees_all_close(compiled, interpreted, rtol=1e-4, atol=1e-6)
    chex.assert_tree_all_finite(compiled)


class Knowing(Encoding):
    """Notes whether positions are known to be consecutive while the model is traced."""

    def __init__(self, found):
        self.found = found

    def score(self, logits_BHTS, tile):
        self.found.append(tile.q_tokens.consecutive)
        return logits_BHTS


@pytest.mark.parametrize("shape,known", [({"data": 8}, True), ({"context": 4}, False)])
def test_a_step_knows_that_positions_are_those_of_text(shape, known):
    """Biases by distance take their fast form then. On a ring, tokens are in another order."""
    found = []
    model = common.build_model(Knowing(found), implementation="dense")
    tokens = np.zeros((2, 9), np.int32)
    with jax.set_mesh(make_mesh(**shape)):
        jax.eval_shape(lambda: TASK.loss(model, tokens, jax.random.key(0)))
    assert found and set(found) == {known}


def test_gradient_accumulation_is_the_whole_batch():
    state = common.text_state(jax.random.key(0), SPEC, RECIPE)
    tokens = jax.random.randint(jax.random.key(1), (8, 9), 0, 16)
    step = jax.jit(functools.partial(train_step, loss=TASK.loss), static_argnames="recipe")
    whole, numbers = step(state, tokens, jax.random.key(2), recipe=RECIPE)
    parts = Recipe(length=8, batch_size=8, steps=6, warmup_steps=2, accumulate=4)
    accumulated, same_numbers = step(state, tokens, jax.random.key(2), recipe=parts)
    np.testing.assert_allclose(numbers["loss"], same_numbers["loss"], rtol=1e-6)
    # The first update is Adam's sign of the gradient: compare moments, which keep its size.
    moments = [state.opt_state[1][0].mu for state in (whole, accumulated)]
    chex.assert_trees_all_close(*moments, rtol=1e-4, atol=1e-7)


def test_micro_batches_of_bfloat16_parameters_are_summed_in_float32():
    """Beside the first gradient, each of the others is too small for a sum in bfloat16."""
    model = common.build_model("nope", param_dtype="bfloat16")

    def loss(model, batch, key):
        return (batch * model.final_norm.scale[0]).sum()

    recipe = Recipe(length=8, batch_size=64, steps=6, accumulate=64)
    batch = jnp.ones(64).at[0].set(256)
    step = jax.jit(functools.partial(train_step, loss=loss, recipe=recipe))
    state, numbers = step(initial_state(None, lambda _: model, recipe), batch, jax.random.key(0))
    np.testing.assert_allclose(numbers["gradient_norm"], batch.mean(), rtol=2**-8)
    assert {leaf.dtype for leaf in jax.tree.leaves(state.model)} == {jnp.bfloat16.dtype}


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
    before, after = (nnx.split(each, nnx.Param, ...)[1:] for each in (model, after.model))
    assert jax.tree.leaves(before[1]), "this test can tell"
    chex.assert_trees_all_equal(before[1], after[1])
    assert not any(jax.tree.leaves(jax.tree.map(np.array_equal, before[0], after[0])))


def decayed(model, name="adamw") -> set[str]:
    """Returns the parameters that an optimizer step moves where there is no gradient."""
    recipe = Recipe(
        length=8, batch_size=8, steps=6, warmup_steps=0, weight_decay=0.5, optimizer=name
    )
    optimizer = recipe.transformation()
    zero = jax.tree.map(jnp.zeros_like, model)
    updates, _ = optimizer.update(zero, optimizer.init(model), model)
    moved = jax.tree_util.tree_flatten_with_path(updates)[0]
    return {path_name(path) for path, update in moved if jnp.abs(update).max() > 0}


MATRICES = {f"attention/{each}/kernel" for each in ("q", "k", "v", "out")}
MATRICES |= {f"mlp/{each}/kernel" for each in ("gate", "up", "down")}


@pytest.mark.parametrize("name", common.one_of_each_kind())
def test_weight_decay_is_the_same_for_every_scheme(name):
    """The matrices of the blocks decay, and no parameter of any encoding does."""
    says = jax.tree_util.tree_flatten_with_path(decays(common.build_model(name)))[0]
    assert {path_name(path) for path, it_decays in says if it_decays} == {
        f"layers/{layer}/block/{each}" for layer in range(common.LAYERS) for each in MATRICES
    }


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_the_optimizer_follows_the_rule_of_decay(optimizer):
    model = common.moved(common.build_model("transformer_xl", trained=False), seed=0)
    assert decayed(model, optimizer) == {
        f"layers/{layer}/block/{each}" for layer in range(common.LAYERS) for each in MATRICES
    }


def test_weight_decay_is_the_same_where_layers_are_stacked():
    model = common.moved(common.build_model("shaw", trained=False, scan=True), seed=0)
    assert decayed(model) == {f"layers/0/block/{each}" for each in MATRICES}


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
    matrices = {f"layers/{n}/block/{each}" for n in range(common.LAYERS) for each in MATRICES}
    for name, update in updates_of(recipe.transformation()).items():
        if name in ({f"layers/0/block/{each}" for each in MATRICES} if scan else matrices):
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
    assert decayed(model) == {f"layers/0/block/{each}" for each in MATRICES}


def test_the_recipe_and_reports_state_the_rule():
    words = " ".join(Recipe.__doc__.split())
    assert "Weight decay acts on the matrices of the decoder's blocks" in words
    assert "no parameter of an encoding" in words and "no parameter of an encoding" in RULES


def test_schedule_warms_up_and_falls_to_a_tenth():
    schedule = Recipe(length=8, batch_size=8, steps=100, warmup_steps=10).schedule()
    assert float(schedule(0)) == 0
    assert float(schedule(10)) == pytest.approx(3e-3)
    assert float(schedule(100)) == pytest.approx(3e-4)


def test_losses_are_cross_entropies():
    model = common.text_state(jax.random.key(0), SPEC, RECIPE).model
    tokens = jax.random.randint(jax.random.key(1), (2, 9), 0, 16)
    logits = model(tokens[:, :-1], jnp.arange(8)[None])
    expected = optax.losses.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:])
    np.testing.assert_allclose(token_losses(model, tokens), expected, rtol=1e-6)


def test_tensorboard_gets_the_same_numbers(tmp_path, monkeypatch):
    written = []

    class Writer:
        def __init__(self, folder):
            assert folder == str(tmp_path / "tensorboard")

        def add_scalar(self, name, value, step):
            written.append((name, value, step))

        def close(self):
            written.append("closed")

    monkeypatch.setitem(sys.modules, "tensorboardX", types.SimpleNamespace(SummaryWriter=Writer))
    metrics = Metrics(tmp_path / "metrics.jsonl", 0, tensorboard=True)
    metrics.write(step=3, loss=1.5)
    metrics.close()
    assert written == [("loss", 1.5, 3), "closed"]
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {"step": 3, "loss": 1.5}


def test_tensorboard_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ValueError, match=r"pip install -e '.\[tensorboard\]'"):
        Metrics(tmp_path / "metrics.jsonl", 0, tensorboard=True)


def test_wandb_has_the_same_numbers_and_one_run_a_folder(tmp_path, monkeypatch):
    """Weights & Biases is a stand-in that notes what it is told; it needs an account."""
    started, logged = [], []
    log = lambda values, step: logged.append((step, values))  # noqa: E731
    project = types.SimpleNamespace(log=log, finish=lambda: logged.append("finished"))
    init = lambda **keywords: started.append(keywords) or project  # noqa: E731
    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=init))
    for step in (3, 4):
        metrics = Metrics(tmp_path / "metrics.jsonl", step - 1, wandb="mine")
        metrics.write(step=step, loss=1.5)
        metrics.close()
    assert logged == [(3, {"loss": 1.5}), "finished", (4, {"loss": 1.5}), "finished"]
    assert started[0] == started[1] and started[0]["project"] == "mine"


def test_wandb_has_a_run_for_each_of_the_seeds_that_are_trained_together(tmp_path, monkeypatch):
    """The stand-in gives back the run that is active, as wandb does unless it is told otherwise."""
    active = []

    def init(reinit="return_previous", **_):
        if not active or reinit != "create_new":
            active[:] = active or [types.SimpleNamespace(lines=[])]
            return active[0]
        active.append(types.SimpleNamespace(lines=[]))
        return active[-1]

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=init))
    for seed in range(3):
        Metrics(tmp_path / str(seed) / "metrics.jsonl", 0, wandb="mine")
    assert len(active) == 3


def test_wandb_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ValueError, match=r"pip install -e '.\[wandb\]'"):
        Metrics(tmp_path / "metrics.jsonl", 0, wandb="mine")


def test_changed_config_is_refused_with_the_fields_that_differ(tmp_path):
    config = {"train": {"steps": 5, "length": 8}, "seed": 0}
    open_run(tmp_path, config)
    open_run(tmp_path, config)
    with pytest.raises(ValueError, match=r"train\.steps was 5 and is now 9.*--workdir") as error:
        open_run(tmp_path, {"train": {"steps": 9, "length": 8}, "seed": 0})
    assert "length" not in str(error.value)


@pytest.mark.parametrize(
    "shape", [{"data": 3}, {"fsdp": 3}, {"fsdp": -1}, {"data": 0}, {"data": -2}, {"fsdp": 16}]
)
def test_a_mesh_that_does_not_match_the_devices_is_refused(shape):
    with pytest.raises(ValueError, match=r"mesh=.*data="):
        make_mesh(**shape)


def test_a_model_the_mesh_does_not_divide_is_refused():
    spec = FrozenConfigDict(SPEC.to_dict() | {"model": SPEC.model.to_dict() | {"vocab_size": 15}})
    init = functools.partial(common.text_state, spec=spec, recipe=RECIPE)
    abstract = jax.eval_shape(init, jax.random.key(0))
    with pytest.raises(ValueError, match=r"model=8 does not divide axis 0 of model/embedding"):
        state_shardings(abstract, make_mesh(model=8))


def test_rows_lie_on_the_axes_data_and_fsdp():
    mesh = make_mesh(fsdp=2, model=2)
    batch = jax.device_put(np.zeros((8, 9), np.int32), batch_sharding(mesh))
    assert batch.addressable_shards[0].data.shape == (2, 9)


@pytest.mark.parametrize(
    "field,value",
    [
        ("steps", 0),
        ("length", 0),
        ("batch_size", 0),
        ("accumulate", 3),
        ("checkpoint_every", 0),
        ("log_every", -1),
        ("learning_rate", -1e-3),
        ("learning_rate", float("nan")),
        ("clip_norm", 0.0),
        ("weight_decay", -0.1),
        ("optimizer", "sgd"),
        ("warmup_steps", -1),
        ("beta2", 2.0),
        ("profile_steps", "3"),
        ("profile_steps", "5:5"),
        ("profile_steps", "5:1000000"),
    ],
)
def test_bad_recipes_are_refused(field, value):
    with pytest.raises(ValueError, match=f"train.{field}"):
        Recipe(**({"length": 8, "batch_size": 8, "steps": 6} | {field: value}))
