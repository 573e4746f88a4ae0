"""Tests archives of results: a report is made of one, and training goes on, without the models."""

import io
import json
import lzma
import re
import shutil
import tarfile

import common
import pytest
from tiny_runs import comparison, config, cut_off, flipped

from experiments.pretrained.trained import load_run
from experiments.results import archive
from experiments.results.locks import claimed
from experiments.running.pool import run_points
from posenc_jax.pretrained.files import SafetensorsFiles


def write(path, files):
    """Writes an archive of texts by their names."""
    with tarfile.open(path, "w:xz") as packed:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            packed.addfile(entry, io.BytesIO(content.encode()))
    return path


def close(one, other) -> bool:
    """Returns whether two values of JSON are equal but for the last digits of their numbers."""
    match one:
        case float():
            return one == pytest.approx(other, rel=1e-4, nan_ok=True)
        case dict():
            return one.keys() == other.keys() and all(close(one[key], other[key]) for key in one)
        case list() | tuple():
            return len(one) == len(other) and all(map(close, one, other))
    return one == other


@pytest.fixture
def packed(finished, tmp_path):
    path = tmp_path / "results.tar.xz"
    path.write_bytes(archive.pack(finished))
    return path


def test_restored_results_are_those_of_the_models(corpus, finished, packed, tmp_path):
    assert archive.restore(packed, tmp_path / "there") == (2, 0)
    before, _ = comparison(config(corpus), finished)
    after, output = comparison(config(corpus), tmp_path / "there")
    assert close(after.evaluations(), before.evaluations())
    assert close(after.costs(), before.costs())
    lines = (tmp_path / "there/runs/rope/seed0/metrics.jsonl").read_text().splitlines()
    assert {*json.loads(lines[-1])} == {"step", "loss"}
    assert not list(tmp_path.rglob("checkpoints"))
    assert run_points(after) == [] and "2 of 2 were done before" in output.getvalue()
    common.refuses("seed0", lambda: load_run(tmp_path / "there/runs/rope/seed0"))


def test_a_point_that_a_killed_restore_has_left_unfinished_is_filled(packed, tmp_path):
    archive.restore(packed, tmp_path)
    (tmp_path / "runs/rope/seed0/evaluation.json").unlink()
    begun = tmp_path / "runs/alibi/seed0"
    (begun / "evaluation.json").unlink()
    (begun / "checkpoints").mkdir()
    assert archive.restore(packed, tmp_path) == (1, 1)
    assert (tmp_path / "runs/rope/seed0/evaluation.json").exists()
    assert not (begun / "evaluation.json").exists()


def test_the_same_results_give_the_same_bytes(packed, workdir, monkeypatch):
    out = workdir / "out" / "results.tar.xz"
    monkeypatch.setattr("sys.argv", ["archive", f"--workdir={workdir}", f"--out={out}"])
    assert archive.main() == 0
    assert out.read_bytes() == packed.read_bytes()


def test_a_workdir_is_read_as_its_archive(finished, packed, tmp_path):
    measured = archive.measured(finished)
    assert close(measured, archive.records(packed)) and len(measured) > 1
    assert archive.measured(tmp_path / "none") == []


def test_what_was_changed_is_not_packed(workdir):
    path = workdir / "runs/rope/seed0/evaluation.json"
    path.write_text(path.read_text().replace('"records"', '"others"'))
    common.refuses(r"evaluation\.json", lambda: archive.pack(workdir))


@pytest.mark.parametrize("name", ["../away/run.json", "runs/a/seed0/run.json"])
def test_an_archive_of_something_else_or_of_half_a_point_is_refused(name, tmp_path):
    path = write(tmp_path / "other.tar.xz", {name: "{}"})
    common.refuses(r"run\.json", lambda: archive.restore(path, tmp_path / "workdir"))
    assert not (tmp_path / "workdir").exists()


@pytest.mark.parametrize("damage", [cut_off, flipped])
def test_a_damaged_archive_is_refused(damage, packed, tmp_path):
    copy = tmp_path / "copy.tar.xz"
    shutil.copy(packed, copy)
    damage(copy)
    common.refuses(re.escape(str(copy)), lambda: archive.restore(copy, tmp_path / "workdir"))
    assert not (tmp_path / "workdir").exists()


# Files of strangers cannot fill memory, or write or read outside of their folder


def test_an_archive_that_expands_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "_MOST_BYTES", 2**20)
    path = tmp_path / "bomb.tar.xz"
    path.write_bytes(lzma.compress(bytes(2**24)))
    common.refuses("1 MiB", lambda: archive.read(path))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, b"S"])
def test_an_entry_that_is_no_plain_file_is_refused(kind, tmp_path):
    entry = tarfile.TarInfo("runs/rope/seed0/evaluation.json")
    entry.type, entry.linkname = kind, "elsewhere"
    head = bytearray(entry.tobuf(tarfile.GNU_FORMAT))
    if kind == b"S":  # a sparse file of 3 GiB, without any bytes
        head[386:410], head[483:495] = b"00000000000\0" * 2, b"%011o\0" % (3 << 30)
        head[148:156] = b"%06o\0 " % (sum(head) - sum(head[148:156]) + 8 * ord(" "))
    path = tmp_path / "given.tar.xz"
    path.write_bytes(lzma.compress(bytes(head) + bytes(1024)))
    common.refuses("no file of a point", lambda: archive.read(path))


def test_an_archive_writes_through_no_link(tmp_path):
    files = {f"runs/rope/seed0/{name}": "{}" for name in archive.FILES}
    path = write(tmp_path / "given.tar.xz", files)
    workdir, away = tmp_path / "workdir", tmp_path / "away"
    workdir.mkdir(), away.mkdir()
    (workdir / "runs").symlink_to(away)
    common.refuses("by a link", lambda: archive.restore(path, workdir))
    assert not [*away.iterdir()]


def test_a_lock_writes_through_no_link(tmp_path):
    (tmp_path / "precious").write_text("text")
    (tmp_path / "run").mkdir()
    (tmp_path / "run/lock").symlink_to(tmp_path / "precious")
    with pytest.raises(OSError, match="lock"), claimed(tmp_path / "run"):
        pass
    assert (tmp_path / "precious").read_text() == "text"


@pytest.mark.parametrize("name", ["../model.safetensors", "/etc/passwd"])
def test_weights_are_read_from_their_folder_only(tmp_path, name):
    index = {"weight_map": {"lm_head.weight": name}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    common.refuses(re.escape(repr(name)), lambda: SafetensorsFiles(tmp_path))
