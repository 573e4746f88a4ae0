"""Files whose weights cannot be used are refused."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from posenc_jax.pretrained.files import GgufFile, SafetensorsFiles


def test_a_gguf_file_that_ends_early(tmp_path):
    (tmp_path / "bad.gguf").write_bytes(b"GGUF")
    with pytest.raises(ValueError, match=r"bad\.gguf"):
        GgufFile(tmp_path / "bad.gguf")


def test_a_quantised_checkpoint(tmp_path):
    save_file({"w": np.ones((2, 3), np.int8)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="w in "):
        SafetensorsFiles(tmp_path).read("w", slice(0, 2), slice(0, 3))
