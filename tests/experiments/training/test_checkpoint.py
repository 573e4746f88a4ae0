"""Tests checkpoints that are damaged, half written, exchanged, or of another version or model."""

import contextlib
import functools
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
from tiny_runs import cut_off, flipped, full_disk
from toy import RECIPE, SPEC, losses, run

from experiments.results.record import open_run
from experiments.training import checkpoint
from experiments.training.checkpoint import Checkpoints

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


def newest(folder, spec=SPEC):
    """Returns the step of the newest whole checkpoint of a run, and its state."""
    make = functools.partial(common.text_state, spec=spec, recipe=RECIPE)
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


def test_a_full_disk_ends_the_run_with_a_sentence_and_the_last_good_checkpoint(
    tmp_path, saved, monkeypatch, caplog
):
    """Orbax writes in the background, so that a failure shows when the next checkpoint is due.

    A limit on the size of files stands in for the full disk: TensorStore fails in earnest.
    """
    save, disk = Checkpoints.save, contextlib.ExitStack()

    def failing(self, step, state):
        if step == 4:
            self.wait()  # that of step 2 is whole
            disk.enter_context(full_disk(4096))
        save(self, step, state)

    sentence = rf"{tmp_path}/checkpoints .*last good checkpoint is of step 2"
    with monkeypatch.context() as patch, disk:
        patch.setattr(Checkpoints, "save", failing)
        common.refuses(sentence, lambda: run(tmp_path), OSError)
    assert not [record for record in caplog.records if record.exc_info], "a traceback is printed"
    model, _ = run(tmp_path)
    chex.assert_trees_all_equal(model, saved[1])
    assert losses(tmp_path) == losses(saved[0])


def damaged(pattern, damage):
    """Returns a function that damages the files of the newest checkpoint in a folder."""

    def spoil(folder, *_):
        for path in sorted((folder / "checkpoints/6").glob(pattern)):
            damage(path)

    return spoil


def of_another_step(folder, *_):
    """The arrays name their run and step, so that they alone cannot be exchanged either."""
    shutil.rmtree(folder / "checkpoints/6/state")
    shutil.copytree(folder / "checkpoints/4/state", folder / "checkpoints/6/state")


def of_another_seed(folder, other_seed):
    shutil.rmtree(folder / "checkpoints/6")
    shutil.copytree(other_seed / "checkpoints/6", folder / "checkpoints/6")


SPOILED = {
    "numbers": damaged("state/**/d/*", flipped),
    "no manifest": damaged("state/manifest.ocdbt", Path.unlink),
    "metadata": damaged("state/_METADATA", cut_off),
    "another step": of_another_step,
    "another seed": of_another_seed,
}


@pytest.mark.parametrize("kind", SPOILED)
def test_a_checkpoint_that_is_damaged_or_of_another_run_is_left_for_the_one_before(
    tmp_path, saved, other_seed, kind
):
    """It is named by its path, and the run that goes on writes it again."""
    shutil.copytree(saved[0], tmp_path, dirs_exist_ok=True)
    SPOILED[kind](tmp_path, other_seed)
    with mock.patch.object(checkpoint.logging, "warning") as warning:
        step, state = newest(tmp_path)
    assert step == 4 and int(state.step) == 4
    assert f"{tmp_path}/checkpoints/6 " in warning.call_args[0][0]
    if kind == "numbers":
        chex.assert_trees_all_equal(run(tmp_path)[0], saved[1])
        assert newest(tmp_path)[0] == 6


def test_where_every_checkpoint_is_damaged_none_is_trained_anew(tmp_path, saved):
    shutil.copytree(saved[0], tmp_path, dirs_exist_ok=True)
    for step in (4, 6):
        shutil.rmtree(tmp_path / f"checkpoints/{step}/state")
    common.refuses("every checkpoint in .*checkpoints is damaged", lambda: run(tmp_path))
    shutil.copytree(saved[0] / "checkpoints/6", tmp_path / "checkpoints/6", dirs_exist_ok=True)
    assert newest(tmp_path)[0] == 6


@pytest.mark.parametrize("changes", [{"num_layers": 2}, {"param_dtype": "bfloat16"}])
def test_a_checkpoint_of_another_model_is_refused(saved, changes):
    """Other types are refused too, which Orbax would cast without a word."""
    spec = FrozenConfigDict(SPEC.to_dict() | {"model": SPEC.model.to_dict() | changes})
    common.refuses("--workdir", lambda: newest(saved[0], spec))
