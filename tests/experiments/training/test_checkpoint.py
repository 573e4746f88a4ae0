"""Tests checkpoints that are damaged, half written, exchanged, or of another version or model."""

import contextlib
import dataclasses
import errno
import functools
import json
import os
import re
import shutil
import tempfile
from pathlib import Path

import chex
import common
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_runs as runs
from ml_collections import FrozenConfigDict
from tiny_runs import cut_off, flipped, full_disk
from toy import RECIPE, SPEC, killed_at, losses, preempted, run

from experiments.pretrained.trained import load_run
from experiments.results.metrics import Metrics
from experiments.results.record import open_run
from experiments.training.checkpoint import Checkpoints
from experiments.training.text import Text

SMALL = {"vocab_size": 16, "model_dim": 8, "mlp_dim": 8, "num_layers": 1, "num_heads": 2}
SMALL_SPEC = FrozenConfigDict({"encoding": {"name": "alibi"}, "model": SMALL})
ARCHIVE = "checkpoint_jax_{}"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Returns the folder of a run with checkpoints of steps 4 and 6, and its model."""
    folder = tmp_path_factory.mktemp("saved")
    return folder, run(folder)[0]


def newest(folder):
    """Returns the step of the newest whole checkpoint in a folder, and its state."""
    make = functools.partial(common.text_state, spec=SPEC, recipe=RECIPE)
    return Checkpoints(folder / "checkpoints").newest(jax.eval_shape(make, jax.random.key(0)))


def keep_checkpoint():
    """Keeps the checkpoint of step 4 of a run, and all its losses, for the next test.

    It was called under each version of JAX, by ``PYTHONPATH=tests:tests/experiments/training
    python -c "import test_checkpoint; test_checkpoint.keep_checkpoint()"``.
    """
    version = ".".join(jax.__version__.split(".")[:2])
    with tempfile.TemporaryDirectory() as name:
        run(Path(name), spec=SMALL_SPEC)
        shutil.rmtree(Path(name, "checkpoints/6"))
        for path in Path(name).rglob("commit_success.txt"):  # which has the name of this folder
            path.unlink()
        shutil.make_archive(str(common.GOLDEN / ARCHIVE.format(version)), "zip", name)


@pytest.mark.parametrize("version", ["0.10", "0.12"])
def test_a_checkpoint_of_another_version_of_jax_goes_on(tmp_path, version):
    shutil.unpack_archive(common.GOLDEN / f"{ARCHIVE.format(version)}.zip", tmp_path)
    metrics, expected = tmp_path / "metrics.jsonl", losses(tmp_path)
    before = metrics.read_text().splitlines()[:4]
    run(tmp_path, spec=SMALL_SPEC)
    assert metrics.read_text().splitlines()[:4] == before, "trained again from the start"
    np.testing.assert_allclose(losses(tmp_path), expected, rtol=1e-6)


def test_a_half_written_checkpoint_is_ignored(tmp_path, saved):
    with killed_at(5):
        run(tmp_path)
    half = tmp_path / "checkpoints" / "6.orbax-checkpoint-tmp-1"
    half.mkdir()
    (half / "default").write_text("cut off")
    model, _ = run(tmp_path)
    chex.assert_trees_all_equal(model, saved[1])


@pytest.mark.parametrize("is_found_later", [False, True])
def test_a_full_disk_ends_the_run_with_a_sentence_and_the_last_good_checkpoint(
    tmp_path, saved, monkeypatch, is_found_later, caplog
):
    """Orbax writes in the background, so that a failure shows when the next checkpoint is due.

    A limit on the size of files stands in for the full disk then: TensorStore fails in earnest.
    """
    save, disk = Checkpoints.save, contextlib.ExitStack()

    def failing(self, step, state, loss):
        if step == 4 and is_found_later:
            self._manager.wait_until_finished()  # that of step 2 is whole
            disk.enter_context(full_disk(4096))
        elif step == 4:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        save(self, step, state, loss)

    reason = "File too large" if is_found_later else "No space left on device"
    sentence = rf"{tmp_path}/checkpoints .*\({reason}\).*last good checkpoint is of step 2"
    with monkeypatch.context() as patch, disk:
        patch.setattr(Checkpoints, "save", failing)
        common.refuses(sentence, lambda: run(tmp_path), OSError)
    assert not [record for record in caplog.records if record.exc_info], "a traceback is printed"
    assert Checkpoints(tmp_path / "checkpoints").latest_step() == 2
    model, _ = run(tmp_path)
    chex.assert_trees_all_equal(model, saved[1])
    assert losses(tmp_path) == losses(saved[0])


def test_a_disk_that_became_read_only_is_noticed_before_orbax_waits_for_it(tmp_path, monkeypatch):
    def refuse(**_):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    sentence = rf"{tmp_path}/checkpoints could not be written \(Read-only file system"
    common.refuses(sentence, lambda: run(tmp_path), OSError)
    assert not [*(tmp_path / "checkpoints").iterdir()]


def test_a_line_that_cannot_be_written_still_ends_with_the_checkpoint_on_disk(
    tmp_path, monkeypatch
):
    def failing(self):
        raise OSError("metrics.jsonl could not be written")

    closed, close = [], Checkpoints.close
    monkeypatch.setattr(Metrics, "close", failing)
    monkeypatch.setattr(Checkpoints, "close", lambda self: closed.append(close(self)))
    common.refuses(r"metrics\.jsonl", lambda: run(tmp_path), OSError)
    assert closed == [None]


def renamed(path):
    """Gives an array the name of another one of the same shape."""
    before, after = (b'"key": "model/layers/0/block/attention/' + name for name in (b"q", b"k"))
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
def test_a_damaged_checkpoint_is_put_aside_for_the_one_before(tmp_path, saved, kind):
    shutil.copytree(saved[0] / "checkpoints", tmp_path / "checkpoints")
    pattern, damage = DAMAGE[kind]
    step = tmp_path / "checkpoints/6"
    for path in sorted(step.glob(pattern)) if pattern else [step]:
        damage(path)
    step, state = newest(tmp_path)
    assert step == 4 and int(state.step) == 4
    assert (tmp_path / "damaged_step_6").exists()
    assert Checkpoints(tmp_path / "checkpoints").latest_step() == 4


def test_metadata_that_orbax_refuses_do_not_end_the_run(tmp_path, saved):
    """The arrays have their own checksums, so the newest checkpoint is still whole."""
    shutil.copytree(saved[0] / "checkpoints", tmp_path / "checkpoints")
    path = tmp_path / "checkpoints/6/_CHECKPOINT_METADATA"
    whole = path.read_text()
    for name in ("item_handlers", "performance_metrics", "init_timestamp_nsecs", "custom_metadata"):
        path.write_text(whole.replace(name, name[:-1] + "r"))
        assert newest(tmp_path)[0] == 6, name


def test_where_every_checkpoint_is_damaged_it_is_said_until_one_is_restored(tmp_path, saved):
    shutil.copytree(saved[0], tmp_path, dirs_exist_ok=True)
    for step in (4, 6):
        shutil.rmtree(tmp_path / f"checkpoints/{step}/default")
    for _ in range(2):
        common.refuses("now in damaged_step_4, damaged_step_6", lambda: run(tmp_path))
    shutil.copytree(saved[0] / "checkpoints/6", tmp_path / "checkpoints/6")
    assert newest(tmp_path)[0] == 6


@pytest.mark.parametrize(
    "changes,message",
    [
        ({"num_layers": 2}, "layers/1/.* and 7 more.*--workdir"),
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
    common.refuses(message, lambda: Checkpoints(tmp_path).newest(other))


def test_a_checkpoint_without_a_loss_is_not_the_best(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, {"x": jnp.zeros(1)})
    checkpoints.close()
    assert Checkpoints(tmp_path).best_step() is None


@pytest.mark.slow
def test_a_signal_around_a_save_is_noticed(tmp_path):
    """Orbax would ask JAX too, under another count, and JAX answers yes at one number alone."""
    program = f"""
import os, signal, time
from pathlib import Path
import jax.numpy as jnp
from experiments import joining, preemption
from experiments.training.checkpoint import Checkpoints
joining.join_job()
assert not any(preemption.requested() for _ in range(3))
checkpoints = Checkpoints(Path({str(tmp_path)!r}))
checkpoints.save(1000, {{"x": jnp.zeros(1)}})
os.kill(os.getpid(), signal.SIGTERM)
time.sleep(1)
print(any(preemption.requested() for _ in range(3)))
checkpoints.close()
"""
    done = runs.program("-c", program)
    assert done.output == "True\n", done.errors


class Turning(Text):
    """Draws what repeats, and from step 9 on other tokens at random, so that the loss rises."""

    def batch(self, seed, step, part, parts):
        rows = np.random.default_rng(step).integers(0, 16, (8, 9))
        if step < 9:
            rows = (rows[:, :1] + np.arange(9)) % 16
        return np.split(rows.astype(np.uint8), parts)[part]


@pytest.mark.parametrize("stop", [None, 5], ids=["undisturbed", "preempted"])
def test_the_checkpoint_with_the_lowest_loss_is_kept_beside_the_last(tmp_path, stop):
    """A preempted run has the same best checkpoint, and goes on from its last one."""
    recipe = dataclasses.replace(RECIPE, steps=16, checkpoint_every=4, learning_rate=1e-2)
    folder, task = tmp_path / "run", Turning(recipe, None, SPEC)
    open_run(folder, SPEC.to_dict() | {"train": dataclasses.asdict(recipe)})
    if stop:
        with preempted(stop):
            run(folder, recipe, task=task)
    model, summary = run(folder, recipe, task=task)
    assert summary["best_step"] == 8
    saved = {int(path.name) for path in (folder / "checkpoints").iterdir()}
    assert saved == {8, 12, 16}
    means = np.mean(np.reshape(losses(folder), (4, 4)), 1)
    metrics = json.loads((folder / "checkpoints/8/metrics/metrics").read_text())
    assert means.argmin() == 1 and metrics["loss"] == pytest.approx(means[1], rel=1e-12)
    assert int(load_run(folder / "best")[0].step) == 8
    state, _ = load_run(folder)
    assert int(state.step) == 16
    chex.assert_trees_all_equal(state.model, jax.device_put(model, jax.devices()[0]))
    flipped(next((folder / "checkpoints/8").glob("default/d/*")))
    common.refuses("step 8", lambda: load_run(folder / "best"))
