"""Tests that files of strangers neither hang a program nor fill its memory."""

import os
import struct

import common
import pytest

from experiments.results import record
from posenc_jax import files, from_hf, layers_from_hf
from posenc_jax.pretrained.models import load

ONE_LAYER = {"model_type": "llama", "hidden_size": 8, "num_attention_heads": 1}
ONE_LAYER |= {"max_position_embeddings": 64}


@pytest.mark.parametrize("read", [files.read_json, record.read_json, record.read_lines, from_hf])
def test_a_pipe_is_refused(read, tmp_path):
    os.mkfifo(tmp_path / "config.json")
    common.refuses("config.json", lambda: read(tmp_path / "config.json"))


@pytest.mark.parametrize("depth", [101, 100_000])
def test_json_of_too_many_levels_is_refused(depth, tmp_path):
    path = tmp_path / "run.json"
    path.write_text("[" * depth + "]" * depth)
    common.refuses("levels", lambda: record.read_json(path))
    path.write_text("[" * 100 + "]" * 100)
    assert record.read_json(path)


def test_a_file_that_is_too_large_is_refused(tmp_path):
    (tmp_path / "a.json").write_bytes(b"1" * 11)
    common.refuses("a.json", lambda: files.read_bytes(tmp_path / "a.json", 10))
    assert files.read_bytes(tmp_path / "a.json", 11) == b"1" * 11


def test_sizes_that_a_config_claims_are_bounded():
    common.refuses("10000", lambda: layers_from_hf(ONE_LAYER | {"num_hidden_layers": 10**9}))


def test_a_gguf_file_that_claims_more_than_it_has_is_refused(tmp_path):
    pytest.importorskip("gguf", reason="the extra pretrained is not installed")
    key, array, uint8 = b"tokenizer.ggml.tokens", 9, 0
    head = b"GGUF" + struct.pack("<IQQ", 3, 0, 1)
    field = struct.pack("<Q", len(key)) + key + struct.pack("<IIQ", array, uint8, 2**40)
    (tmp_path / "model.gguf").write_bytes(head + field + bytes(16))
    common.refuses("model.gguf", lambda: load(tmp_path / "model.gguf"))
