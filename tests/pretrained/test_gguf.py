"""Tests GGUF files, their weights in few bits and their tokenizers."""

import json
import struct

import common
import gguf
import numpy as np
import pytest
from hf_models import our_decoder
from pretrained_cases import TEXT, published, same_numbers, write_gguf

from experiments.pretrained.trained import on_mesh
from experiments.training.mesh import make_mesh
from posenc_jax.pretrained import load, save
from posenc_jax.pretrained.files import GgufFile


def test_a_gguf_file(tmp_path):
    loaded = load(write_gguf(tmp_path / "llama.gguf"))
    config, tensors = published("llama")
    same_numbers(loaded.model, our_decoder(config, tensors))
    shardings = on_mesh(make_mesh(data=4, model=2))
    spread = load(tmp_path / "llama.gguf", shardings=shardings, scan=True)
    save(tmp_path / "out", spread.model, spread.config, spread.tokenizer)
    again = load(tmp_path / "out")
    same_numbers(again.model, loaded.model)
    assert again.tokenizer.encode(TEXT).ids == loaded.tokenizer.encode(TEXT).ids
    about = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())
    assert (about["bos_token"], about["eos_token"]) == ("<s>", "<end>")


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_1"])
def test_a_gguf_file_in_few_bits(kind, tmp_path, monkeypatch):
    """The file's numbers are what gguf makes of it, in pieces as at once."""
    monkeypatch.setattr("posenc_jax.pretrained.files._CHUNK", 5 * 32)
    kind = gguf.GGMLQuantizationType[kind]
    model = load(write_gguf(tmp_path / "llama.gguf", kind=kind)).model
    _, tensors = published("llama")
    value = tensors["model.layers.1.mlp.up_proj.weight"]
    expected = gguf.dequantize(gguf.quantize(value, kind), kind).T
    np.testing.assert_array_equal(model.layers[1].block.mlp.up.kernel[...], expected)
    assert 0 < np.abs(expected - value.T).max() < 0.2


@pytest.mark.parametrize("pre", ["smollm", "gpt-2", "llama-bpe"])
def test_the_tokenizer_of_a_gguf_file(pre, tmp_path):
    tokenizer = load(write_gguf(tmp_path / "llama.gguf", pre=pre)).tokenizer
    assert tokenizer.decode(tokenizer.encode(TEXT).ids) == TEXT
    assert tokenizer.encode("the cat the").tokens == ["t", "he", "Ġcat", "Ġthe"]
    digits = {"smollm": list("12345"), "gpt-2": ["1234", "5"], "llama-bpe": ["12", "3", "4", "5"]}
    assert tokenizer.encode("12345").tokens == digits[pre]
    assert tokenizer.encode("<end>cat<think>").tokens == ["<end>", "cat", "<think>"]


def test_a_tokenizer_that_starts_every_text(tmp_path):
    tokenizer = load(write_gguf(tmp_path / "llama.gguf", bos=True)).tokenizer
    assert tokenizer.encode("cat").tokens == ["<s>", "cat"]
    assert tokenizer.decode(tokenizer.encode(TEXT).ids) == TEXT
    common.refuses("pre='viking'", lambda: load(write_gguf(tmp_path / "b.gguf", pre="viking")))


LONG = 2**60


@pytest.mark.parametrize(
    "rest",
    [
        struct.pack("<QQ", LONG, 0),  # tensors
        struct.pack("<QQ", 0, LONG),  # pairs of the metadata
        struct.pack("<QQQ", 0, 1, LONG),  # a name
    ],
)
def test_a_gguf_file_that_claims_more_than_it_has(rest, tmp_path):
    (tmp_path / "bad.gguf").write_bytes(b"GGUF" + struct.pack("<I", 3) + rest)
    common.refuses(r"bad\.gguf", lambda: GgufFile(tmp_path / "bad.gguf"))
