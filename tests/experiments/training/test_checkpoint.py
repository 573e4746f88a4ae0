"""Tests checkpoints that are damaged, half written, exchanged, or of another version or model."""

import contextlib
import errno
import functools
import os
import shutil
import tempfile
from pathlib import Path
from unittest import mock

import chex
import common
import jax
import numpy as np
import pytest
from ml_collections import FrozenConfigDict
from orbax.checkpoint import v1 as ocp
from tiny_runs import cut_off, flipped, full_disk
from toy import RECIPE, SPEC, killed_at, losses, run

from experiments.results.metrics import Metrics
from experiments.results.record import open_run
from experiments.training import checkpoint
from experiments.training.checkpoint import Checkpoints
from experiments.training.mesh import by_path

SMALL = {"vocab_size": 16, "model_dim": 8, "mlp_dim": 8, "num_layers": 1, "num_heads": 2}
SMALL_SPEC = FrozenConfigDict({"encoding": {"name": "alibi"}, "model": SMALL})
ARCHIVE = "checkpoint_jax_{}"


def trained(folder, seed=0):
    """Trains a run that has a ``run.json``, with checkpoints of steps 4 and 6."""
    open_run(folder, {"seed": seed})
    return run(folder, seed=seed)[0]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Returns the folder of a run and its model."""
    folder = tmp_path_factory.mktemp("saved")
    return folder, trained(folder)


@pytest.fixture(scope="module")
def other_seed(tmp_path_factory):
    """Returns the folder of the same run under another seed."""
    folder = tmp_path_factory.mktemp("other_seed")
    trained(folder, seed=1)
    return folder


def newest(folder):
    """Returns the step of the newest whole checkpoint of a run, and its state."""
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
        for path in Path(name).rglob("commit_success.txt"):
            path.write_text("")  # it has the name of this folder
        shutil.make_archive(str(common.GOLDEN / ARCHIVE.format(version)), "zip", name)


@pytest.mark.parametrize("version", ["0.10", "0.12"])
def test_a_checkpoint_of_another_version_of_jax_goes_on(tmp_path, version):
    shutil.unpack_archive(common.GOLDEN / f"{ARCHIVE.format(version)}.zip", tmp_path)
    metrics, expected = tmp_path / "metrics.jsonl", losses(tmp_path)
    before = metrics.read_text().splitlines()[:4]
    run(tmp_path, spec=SMALL_SPEC)
    assert metrics.read_text().splitlines()[:4] == before, "trained again from the start"
    np.testing.assert_allclose(losses(tmp_path), expected, rtol=1e-6)


def test_a_half_written_checkpoint_is_ignored_and_removed(tmp_path, saved):
    with killed_at(5):
        run(tmp_path)
    half = tmp_path / "checkpoints" / "6.orbax-checkpoint-tmp"
    half.mkdir()
    (half / "state").write_text("cut off")
    model, _ = run(tmp_path)
    chex.assert_trees_all_equal(model, saved[1])
    assert not half.exists()


@pytest.mark.parametrize("is_found_later", [False, True])
def test_a_full_disk_ends_the_run_with_a_sentence_and_the_last_good_checkpoint(
    tmp_path, saved, monkeypatch, is_found_later, caplog
):
    """Orbax writes in the background, so that a failure shows when the next checkpoint is due.

    A limit on the size of files stands in for the full disk then: TensorStore fails in earnest.
    """
    save, disk = Checkpoints.save, contextlib.ExitStack()

    def failing(self, step, state):
        if step == 4 and is_found_later:
            self.wait()  # that of step 2 is whole
            disk.enter_context(full_disk(4096))
        elif step == 4:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        save(self, step, state)

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


def test_a_line_that_cannot_be_written_still_ends_with_the_checkpoint_on_disk(
    tmp_path, monkeypatch
):
    def failing(self):
        raise OSError("metrics.jsonl could not be written")

    monkeypatch.setattr(Metrics, "close", failing)
    common.refuses(r"metrics\.jsonl", lambda: run(tmp_path), OSError)
    assert Checkpoints(tmp_path / "checkpoints").latest_step() == RECIPE.steps


def emptied(folder):
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


DAMAGE = {
    "numbers": ("state/**/d/*", flipped),
    "no numbers": ("state/**/d/*", Path.unlink),
    "no manifest": ("state/manifest.ocdbt", Path.unlink),
    "metadata": ("state/_METADATA", cut_off),
    "metadata of arrays": ("state/array_metadatas/process_0", cut_off),
}


def falls_back(folder):
    """Expects that the checkpoint of step 4 is taken instead of that of step 6, by its path."""
    with mock.patch.object(checkpoint.logging, "warning") as warning:
        step, state = newest(folder)
    assert step == 4 and int(state.step) == 4
    assert f"{folder}/checkpoints/6 " in warning.call_args[0][0]


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_checkpoint_is_left_for_the_one_before(tmp_path, saved, kind):
    shutil.copytree(saved[0], tmp_path, dirs_exist_ok=True)
    pattern, damage = DAMAGE[kind]
    for path in sorted((tmp_path / "checkpoints/6").glob(pattern)):
        damage(path)
    falls_back(tmp_path)


@pytest.mark.parametrize("part", ["6", "6/state"])
@pytest.mark.parametrize("kind", ["another seed", "another step"])
def test_a_checkpoint_of_another_run_or_step_falls_back(tmp_path, saved, other_seed, kind, part):
    """The arrays name their run and step, so they alone cannot be exchanged either."""
    shutil.copytree(saved[0], tmp_path, dirs_exist_ok=True)
    of = other_seed if kind == "another seed" else saved[0]
    number = "6" if kind == "another seed" else "4"
    shutil.rmtree(tmp_path / "checkpoints" / part)
    shutil.copytree(of / "checkpoints" / part.replace("6", number), tmp_path / "checkpoints" / part)
    falls_back(tmp_path)


def test_a_checkpoint_that_says_of_no_run_that_it_is_theirs_is_refused(tmp_path):
    """Earlier versions have written such."""
    open_run(tmp_path, {"seed": 0})
    state = common.text_state(jax.random.key(0), SPEC, RECIPE)
    ocp.save(tmp_path / "checkpoints/6", by_path(state))
    common.refuses("checkpoints/6 does not say which run and step", lambda: newest(tmp_path))
    assert (tmp_path / "checkpoints/6").exists()


def test_a_damaged_checkpoint_is_overwritten_by_the_run_that_goes_on(tmp_path, saved):
    shutil.copytree(saved[0], tmp_path, dirs_exist_ok=True)
    flipped(next((tmp_path / "checkpoints/6").glob("state/d/*")))
    chex.assert_trees_all_equal(run(tmp_path)[0], saved[1])
    assert newest(tmp_path)[0] == 6


def test_where_every_checkpoint_is_damaged_it_is_said_until_one_is_restored(tmp_path, saved):
    shutil.copytree(saved[0], tmp_path, dirs_exist_ok=True)
    for step in (4, 6):
        shutil.rmtree(tmp_path / f"checkpoints/{step}/state")
    for _ in range(2):
        common.refuses("every checkpoint in .*checkpoints is damaged", lambda: run(tmp_path))
    shutil.copytree(saved[0] / "checkpoints/6", tmp_path / "checkpoints/6", dirs_exist_ok=True)
    assert newest(tmp_path)[0] == 6


@pytest.mark.parametrize(
    "changes,message",
    [
        ({"num_layers": 2}, "layers/1/.* and 6 more.*--workdir"),
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
