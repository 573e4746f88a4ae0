"""Files whose weights are no weights, or whose counts are larger than the file, are refused."""

import struct

import numpy as np
import pytest
from safetensors.numpy import save_file

from posenc_jax.pretrained.files import GgufFile, SafetensorsFiles

LONG = 2**60


def text(words: bytes) -> bytes:
    return struct.pack("<Q", len(words)) + words


@pytest.mark.parametrize(
    "rest",
    [
        struct.pack("<QQ", LONG, 0),  # tensors
        struct.pack("<QQ", 0, 1) + text(b"a") + struct.pack("<IIQ", 9, 8, LONG),  # texts
        struct.pack("<QQ", 0, 1) + text(b"a") + struct.pack("<IIQ", 9, 9, 1) * 999,  # nested
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
