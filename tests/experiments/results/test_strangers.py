"""Tests that files of strangers cannot fill memory, or write or read outside of their folder."""

import io
import json
import lzma
import re
import tarfile

import pytest

from experiments.results import archive
from experiments.results.record import claimed
from posenc_jax.pretrained.files import SafetensorsFiles


def test_an_archive_that_expands_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "_MOST_BYTES", 2**20)
    path = tmp_path / "bomb.tar.xz"
    path.write_bytes(lzma.compress(bytes(2**24)))
    with pytest.raises(ValueError, match="1 MiB"):
        archive.read(path)


def test_an_archive_writes_through_no_link(tmp_path):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:xz") as file:
        for name in archive.FILES:
            entry = tarfile.TarInfo(f"runs/rope/seed0/{name}")
            entry.size = 2
            file.addfile(entry, io.BytesIO(b"{}"))
    (tmp_path / "given.tar.xz").write_bytes(packed.getvalue())
    workdir, away = tmp_path / "workdir", tmp_path / "away"
    workdir.mkdir(), away.mkdir()
    (workdir / "runs").symlink_to(away)
    with pytest.raises(ValueError, match="by a link"):
        archive.restore(tmp_path / "given.tar.xz", workdir)
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
    with pytest.raises(ValueError, match=re.escape(repr(name))):
        SafetensorsFiles(tmp_path)
