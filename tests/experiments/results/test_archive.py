"""Tests archives of results: a report is made of one, and training goes on, without the models."""

import io
import json
import shutil
import subprocess
import sys
import tarfile

import pytest
from test_compare import ROOT, comparison, config
from test_train import cut_off, flipped

from experiments.pretrained.trained import load_run
from experiments.results import archive
from experiments.results.record import environment


@pytest.fixture(scope="module")
def packed(corpus, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("results")
    one, _ = comparison(config(corpus, schemes="rope"), workdir)
    assert one.run() == []
    path = workdir / "out" / "results.tar.xz"
    assert _main("--workdir", workdir, "--out", path) == 0
    return workdir, path


def _main(*arguments):
    command = [sys.executable, "-m", "experiments.results.archive", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT).returncode


@pytest.mark.slow
def test_restored_results_are_those_of_the_models(corpus, packed, tmp_path):
    workdir, path = packed
    assert archive.restore(path, tmp_path) == (1, 0)
    before, _ = comparison(config(corpus, schemes="rope"), workdir)
    after, output = comparison(config(corpus, schemes="rope"), tmp_path)
    assert after.results() == before.results()
    assert not list(tmp_path.rglob("checkpoints"))
    assert after.run() == [] and "1 of 1 were done before" in output.getvalue()
    with pytest.raises(ValueError, match=r"experiments\.results\.archive has no checkpoints"):
        load_run(tmp_path / "runs/rope/seed0")


@pytest.mark.slow
def test_a_restored_workdir_goes_on_with_what_is_missing(corpus, packed, tmp_path):
    archive.restore(packed[1], tmp_path)
    one, _ = comparison(config(corpus, schemes="rope,alibi"), tmp_path)
    assert one.run() == []
    assert sorted(path.parents[1].name for path in tmp_path.rglob("checkpoints")) == ["alibi"]


@pytest.mark.slow
def test_a_report_says_where_its_results_were_made(corpus, packed, tmp_path):
    archive.restore(packed[1], tmp_path)
    path = tmp_path / "runs/rope/seed0/run.json"
    run = json.loads(path.read_text())
    run["versions"]["jax"] = "0.9.1"
    path.write_text(json.dumps(run | {"device": "256 x TPU v9 (tpu)", "git": "abc1234"}))
    one, _ = comparison(config(corpus, schemes="rope,alibi"), tmp_path)
    about = one.about("the command")
    assert (about["device"], about["git"]) == ("256 x TPU v9 (tpu)", "abc1234")
    assert one.run() == []
    both = one.about("the command")
    here = environment()
    assert both["device"] == f"256 x TPU v9 (tpu), {here['device']}"
    assert both["versions"]["jax"] == f"0.9.1, {here['versions']['jax']}"
    assert both["versions"]["numpy"] == here["versions"]["numpy"]


def test_the_same_results_give_the_same_bytes(packed, tmp_path):
    workdir, path = packed
    copy = tmp_path / "copy"
    shutil.copytree(workdir, copy)
    assert archive.pack(copy) == path.read_bytes()


def test_a_point_that_the_workdir_has_begun_is_left_alone(packed, tmp_path):
    folder = tmp_path / "runs/rope/seed0"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text("{}")
    assert archive.restore(packed[1], tmp_path) == (0, 1)
    assert [path.name for path in folder.iterdir()] == ["run.json"]


def test_a_folder_without_results_is_refused(tmp_path, capfd):
    assert _main("--workdir", tmp_path, "--out", tmp_path / "a.tar.xz") == 2
    assert "has no finished point" in capfd.readouterr().err
    assert not list(tmp_path.iterdir())


def test_what_is_damaged_is_not_packed(packed, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(packed[0], copy)
    (copy / "runs/rope/seed0/evaluation.json").write_text('{"records": [')
    with pytest.raises(ValueError, match=r"evaluation\.json is damaged"):
        archive.pack(copy)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"../away/run.json": "{}"}, "no file of a point"),
        ({"runs/a/seed0/run.json": "{}"}, "has run.json of runs/a/seed0"),
        ({f"runs/a/seed0/{name}": "{" for name in archive.FILES}, "is damaged"),
    ],
    ids=["outside", "half", "damaged"],
)
def test_an_archive_of_something_else_is_refused(files, message, tmp_path):
    path = tmp_path / "other.tar.xz"
    with tarfile.open(path, "w:xz") as other:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            other.addfile(entry, io.BytesIO(content.encode()))
    with pytest.raises(ValueError, match=message):
        archive.restore(path, tmp_path / "workdir")
    assert not (tmp_path / "workdir").exists()


def altered_at_the_end(path):
    """Alters what follows the last entry, which is as far as a reader of entries comes."""
    content = bytearray(path.read_bytes())
    content[-40] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [cut_off, flipped, altered_at_the_end])
def test_a_damaged_archive_is_refused(damage, packed, tmp_path):
    copy = tmp_path / "copy.tar.xz"
    shutil.copy(packed[1], copy)
    damage(copy)
    with pytest.raises(ValueError, match="not a complete archive"):
        archive.restore(copy, tmp_path / "workdir")
    assert not (tmp_path / "workdir").exists()


@pytest.mark.slow
def test_a_report_of_what_is_done_trains_nothing(corpus, packed, tmp_path):
    archive.restore(packed[1], tmp_path)
    command = [sys.executable, "launch.py", "--config=configs/extrapolation.py:tiny", "--report"]
    command += [f"--workdir={tmp_path}", f"--config.corpus={corpus}", "--config.schemes=rope,nope"]
    command += ["--share"]  # which alone leaves the report to another program
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "report.html" in ended.stdout
    records = json.loads((tmp_path / "results.json").read_text())["records"]
    assert {record["scheme"] for record in records} == {"rope", "rope_windowed"}
    assert not list(tmp_path.rglob("checkpoints"))


def test_a_point_whose_model_was_given_has_no_metrics(tmp_path):
    folder = tmp_path / "here/runs/rope/seed0"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text("{}")
    (folder / "evaluation.json").write_text('{"training": {"steps": 0}}')
    path = tmp_path / "results.tar.xz"
    path.write_bytes(archive.pack(tmp_path / "here"))
    assert archive.restore(path, tmp_path / "there") == (1, 0)
    assert archive.pack(tmp_path / "there") == path.read_bytes()
    (folder / "evaluation.json").write_text('{"training": {"steps": 6}}')
    with pytest.raises(FileNotFoundError, match="metrics"):
        archive.pack(tmp_path / "here")
