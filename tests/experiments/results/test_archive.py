"""Tests archives of results: a report is made of one, and training goes on, without the models."""

import io
import json
import shutil
import tarfile

import pytest
from runs import comparison, config, cut_off, flipped

from experiments.pretrained.trained import load_run
from experiments.results import archive
from experiments.results.record import environment


def main(monkeypatch, *arguments) -> int:
    """Runs the command line, and returns its exit status."""
    monkeypatch.setattr("sys.argv", ["archive", *map(str, arguments)])
    return archive.main()


@pytest.fixture
def packed(finished, tmp_path):
    path = tmp_path / "results.tar.xz"
    path.write_bytes(archive.pack(finished))
    return path


def test_restored_results_are_those_of_the_models(corpus, finished, packed, tmp_path):
    assert archive.restore(packed, tmp_path / "there") == (2, 0)
    before, _ = comparison(config(corpus), finished)
    after, output = comparison(config(corpus), tmp_path / "there")
    assert after.results() == before.results()
    assert not list(tmp_path.rglob("checkpoints"))
    assert after.run() == [] and "2 of 2 were done before" in output.getvalue()
    with pytest.raises(ValueError, match="has no checkpoints"):
        load_run(tmp_path / "there/runs/rope/seed0")


def test_a_report_says_where_its_results_were_made(corpus, packed, tmp_path):
    archive.restore(packed, tmp_path)
    path = tmp_path / "runs/rope/seed0/run.json"
    run = json.loads(path.read_text())
    run["versions"]["jax"] = "0.9.1"
    path.write_text(json.dumps(run | {"device": "256 x TPU v9 (tpu)", "git": "abc1234"}))
    about, here = comparison(config(corpus), tmp_path)[0].about("the command"), environment()
    assert about["device"] == f"256 x TPU v9 (tpu), {here['device']}"
    assert about["versions"]["jax"] == f"0.9.1, {here['versions']['jax']}"
    assert about["versions"]["numpy"] == here["versions"]["numpy"]


def test_the_same_results_give_the_same_bytes(packed, workdir, monkeypatch):
    out = workdir / "out" / "results.tar.xz"
    assert main(monkeypatch, "--workdir", workdir, "--out", out) == 0
    assert out.read_bytes() == packed.read_bytes()


def test_a_workdir_is_read_as_its_archive(finished, packed, tmp_path):
    measured = archive.measured(finished)
    assert measured == archive.records(packed) and len(measured) > 1
    assert archive.measured(tmp_path / "none") == []


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"../away/run.json": "{}"}, "no file of a point"),
        ({"runs/a/seed0/run.json": "{}"}, "has run.json of runs/a/seed0"),
    ],
    ids=["outside", "half"],
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


@pytest.mark.parametrize("damage", [cut_off, flipped])
def test_a_damaged_archive_is_refused(damage, packed, tmp_path):
    copy = tmp_path / "copy.tar.xz"
    shutil.copy(packed, copy)
    damage(copy)
    with pytest.raises(ValueError, match="not a complete archive"):
        archive.restore(copy, tmp_path / "workdir")
    assert not (tmp_path / "workdir").exists()
