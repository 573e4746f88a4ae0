"""Tests the files of a run on a full disk, and that TensorBoard is told the same numbers."""

import errno
import json
import re
import sys
import types
from pathlib import Path

import pytest
from runs import full_disk

from experiments.results.metrics import Metrics
from experiments.results.record import claimed, write_files


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


def refused(path):
    """Expects the sentence about a file that a full disk has refused."""
    sentence = rf"^{re.escape(str(path))} could not be .*too large.* the same command goes on$"
    return pytest.raises(OSError, match=sentence)


def test_a_full_disk_leaves_old_files_and_is_told_with_the_name_of_the_file(tmp_path):
    old = {"a.json": "1", "b.json": "2"}
    write_files(tmp_path, old)
    with refused(tmp_path / "b.json"), full_disk():
        write_files(tmp_path, {"a.json": "3", "b.json": "longer"})
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == old
    with refused(tmp_path / "lock"), full_disk(0), claimed(tmp_path):
        pytest.fail("the lock was not written")


def test_a_folder_that_is_only_for_reading_is_told_with_the_name_of_the_file(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system", ".a.json.1")

    for name in ("write_bytes", "unlink"):
        monkeypatch.setattr(Path, name, refuse)
    with pytest.raises(OSError, match=rf"^{tmp_path}/a\.json could not be written \(Read-only"):
        write_files(tmp_path, {"a.json": "1"})


def test_a_line_that_a_full_disk_has_cut_off_is_not_read(tmp_path):
    path = tmp_path / "metrics.jsonl"
    metrics = Metrics(path, 0)
    metrics.write(step=1, loss=1.0)
    with full_disk(30):
        with refused(path):
            metrics.write(step=2, loss=2.0)
        with refused(path):
            metrics.close()
    assert path.read_text().splitlines()[1], "half a line is there"
    metrics = Metrics(path, 2)
    metrics.close()
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1]
