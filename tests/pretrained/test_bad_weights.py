"""Files whose weights are no weights, or whose counts are larger than the file, are refused."""

import re
import struct

import numpy as np
import pytest
from safetensors.numpy import save_file

from posenc_jax.pretrained import load
from posenc_jax.pretrained.files import GgufFile, SafetensorsFiles

LONG = 2**60


def text(words: bytes) -> bytes:
    return struct.pack("<Q", len(words)) + words


@pytest.mark.parametrize(
    "rest",
    [
        struct.pack("<QQ", LONG, 0),  # tensors
        struct.pack("<QQ", 0, LONG),  # pairs of the metadata
        struct.pack("<QQQ", 0, 1, LONG),  # a name
        struct.pack("<QQ", 0, 1) + text(b"a") + struct.pack("<IIQ", 9, 8, LONG),  # texts
        struct.pack("<QQ", 0, 1) + text(b"a") + struct.pack("<I", 99),  # a type that is none
        b"",
    ],
)
def test_a_gguf_file_that_claims_more_than_it_has(rest, tmp_path):
    (tmp_path / "bad.gguf").write_bytes(b"GGUF" + struct.pack("<I", 3) + rest)
    with pytest.raises(ValueError, match=r"bad\.gguf"):
        GgufFile(tmp_path / "bad.gguf")


@pytest.mark.parametrize("numbers", [np.ones((2, 3), np.int8), np.full((2, 3), np.nan, np.float32)])
def test_tensors_that_are_no_weights(numbers, tmp_path):
    save_file({"w": numbers}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="w in "):
        SafetensorsFiles(tmp_path).read("w", slice(0, 2), slice(0, 3))


@pytest.mark.parametrize("content", ["[1]", "3", '"x"'])
@pytest.mark.parametrize("name", ["config.json", "model.safetensors.index.json"])
def test_a_file_of_json_that_is_no_object(name, content, tmp_path):
    save_file({"w": np.ones(1, np.float32)}, tmp_path / "model.safetensors")
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=re.escape(name)):
        load(tmp_path)


def test_an_index_without_a_map_and_a_tokenizer_that_is_cut(tmp_path):
    save_file({"w": np.ones(1, np.float32)}, tmp_path / "model.safetensors")
    files = SafetensorsFiles(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"version": ')
    with pytest.raises(ValueError, match=r"tokenizer\.json"):
        files.tokenizer()
    (tmp_path / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(ValueError, match="weight_map"):
        load(tmp_path)
