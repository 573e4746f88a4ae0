"""Tests published models: read, placed on devices, extended and written again."""

import json
import os
import re
import sys

import common
import jax
import ml_dtypes
import numpy as np
import pytest
from flax import nnx
from hf_models import our_decoder
from pretrained_cases import MODELS, folder, published, same_numbers
from safetensors.numpy import load_file

from experiments.pretrained.trained import on_mesh
from experiments.training.mesh import make_mesh
from posenc_jax import from_hf, make
from posenc_jax.hf.pattern import same
from posenc_jax.positions import text
from posenc_jax.pretrained import decoder, load, load_encoding, models, save
from posenc_jax.pretrained.__main__ import main
from posenc_jax.pretrained.files import SafetensorsFiles


@pytest.mark.parametrize(("name", "scan"), [*((n, False) for n in MODELS), ("smollm3", True)])
def test_what_is_read_is_written_again(name, scan, tmp_path):
    config, tensors = published(name)
    loaded = load(folder(tmp_path / "in", config, tensors), scan=scan)
    assert loaded.tokenizer is None and loaded.config == config
    if not scan:
        same_numbers(loaded.model, our_decoder(config, tensors))
    save(tmp_path / "out", loaded.model, loaded.config)
    again = load_file(tmp_path / "out" / "model.safetensors")
    assert again.keys() == tensors.keys()
    for key, value in tensors.items():
        np.testing.assert_array_equal(again[key], value)
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config.items() <= written.items()
    assert {"dtype": "float32", "torch_dtype": "float32"}.items() <= written.items()
    read = load(tmp_path / "out", scan=scan).model
    assert all(map(same, read.distinct(), loaded.model.distinct()))
    assert sorted(os.listdir(tmp_path)) == ["in", "out"]


def test_several_files_in_another_type(tmp_path):
    config, tensors = published("qwen3")
    low = {name: value.astype(ml_dtypes.bfloat16) for name, value in tensors.items()}
    path = folder(tmp_path / "in", config, low, files=3)
    model = load(path).model
    exact = our_decoder(config, {n: value.astype(np.float32) for n, value in low.items()})
    same_numbers(model, exact)
    low_model = load(path, param_dtype="bfloat16", dtype="bfloat16").model
    assert {p.dtype.name for p in jax.tree.leaves(low_model)} == {"bfloat16"}
    save(tmp_path / "out", low_model, config)
    again = load_file(tmp_path / "out" / "model.safetensors")
    np.testing.assert_array_equal(again["lm_head.weight"], low["lm_head.weight"])
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "bfloat16"
    (path / "part-1.safetensors").unlink()
    common.refuses(r"lacks part-1.safetensors: add the missing weights", lambda: load(path))


@pytest.mark.parametrize("name", ["phi3", "qwen2"])
def test_each_device_reads_its_own_part(name, tmp_path, monkeypatch):
    config, tensors = published(name)
    read, largest = SafetensorsFiles.read, {}

    def counted(self, name, *spans):
        part = read(self, name, *spans)
        largest[name] = max(largest.get(name, 0), part.size)
        return part

    monkeypatch.setattr(SafetensorsFiles, "read", counted)
    path = folder(tmp_path / "in", config, tensors)
    model = load(path, shardings=on_mesh(make_mesh(fsdp=2, model=4))).model
    same_numbers(model, our_decoder(config, tensors))
    block = model.layers[0].block
    kernels = block.attention.q.kernel, block.attention.out.kernel, block.mlp.down.kernel
    for parameter in (*kernels, model.embedding):
        shards = parameter[...].addressable_shards
        assert {shard.data.size for shard in shards} == {parameter.size // 8}
    for name, size in largest.items():
        # What is no vector is in eight parts, and rows of one tensor come one by one.
        assert tensors[name].ndim == 1 or size <= tensors[name].size // 8, name


def test_what_old_checkpoints_have_beside_weights(tmp_path):
    config, tensors = published("llama")
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.zeros(4, np.float32)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    path = folder(tmp_path / "in", config, tensors)
    same_numbers(load(path).model, our_decoder(*published("llama")))
    tensors["lm_head.weight"] = 2 * tensors["lm_head.weight"]
    path = folder(tmp_path / "other", config, tensors)
    common.refuses(r"lm_head.weight .* differs from .*embeddings=False", lambda: load(path))
    untied = load(path, tie_word_embeddings=False)
    np.testing.assert_array_equal(untied.model.unembedding, tensors["lm_head.weight"])


# Extended and written


def test_an_extended_model_is_written_and_read(tmp_path):
    config, tensors = published("smollm3")
    config = config | {"max_position_embeddings": 16}
    loaded = load(folder(tmp_path / "in", config, tensors))
    yarn = loaded.under("yarn", factor=2.0, beta_fast=4.0)
    save(tmp_path / "out", yarn, loaded.config)
    again = load(tmp_path / "out")
    assert again.length == 32
    for number in range(4):
        pairs = (model.layer_at(number) for model in (yarn, again.model))
        one, other = ((common.hooks(encoding), window) for encoding, window in pairs)
        assert one == other
    ids, models = np.arange(24)[None] + 3, (again.model, yarn, loaded.model)
    actual, expected, short = (common.forward(model, ids, text(24)) for model in models)
    common.close(actual, expected)
    assert np.abs(expected - short).max() > 0.01


def test_the_model_under_other_schemes(tmp_path):
    config, tensors = published("smollm3")
    config = config | {"max_position_embeddings": 16}
    loaded = load(folder(tmp_path / "in", config, tensors))
    rope, nope = (encoding for encoding, _ in map(loaded.model.layer_at, (0, 1)))
    dropped = loaded.under("nope")
    assert not any(common.hooks(dropped.layer_at(number)[0]) for number in range(4))
    scaled = loaded.under("logn").layer_at(2)[0]
    assert same(scaled.inner, rope) and scaled.train_length == 16
    assert loaded.under("rerope", window=8).layer_at(0)[0].base == 100.0
    assert same(loaded.under("yarn", factor=4.0).layer_at(3)[0], nope)
    pattern = re.escape(".model.under(posenc_jax.make('irope', head_dim=8, num_layers=4")
    common.refuses(pattern, lambda: loaded.under("irope"))
    loaded.model.under(make("irope", head_dim=8, num_layers=4, base=100.0))
    still = load(tmp_path / "in", no_rope_layers=[0] * 4)
    common.refuses(
        "the model has 0 different rotary encodings", lambda: still.under("yarn", factor=4.0)
    )


def test_a_rule_of_frequencies_is_not_dropped(tmp_path):
    """Llama 3.1 was trained with its rule, so a scheme on plain RoPE gives wrong logits."""
    config, tensors = published("llama")
    plain = config["rope_parameters"]
    rule = plain | {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8}
    changed = config | {"rope_parameters": rule, "max_position_embeddings": 32}
    path = folder(tmp_path / "in", changed, tensors)
    loaded = load(path)
    for name in ("yarn", "rope", "self_extend"):
        common.refuses("would drop the rule", lambda name=name: loaded.under(name, factor=2.0))
    rope, _ = loaded.model.layer_at(0)
    assert same(loaded.under("logn").layer_at(0)[0].inner, rope)
    without = load(path, rope_parameters=plain, max_position_embeddings=8)
    assert same(without.under("yarn", factor=4.0).layer_at(0)[0], rope)


def test_a_folder_is_whole_or_not_there(tmp_path, monkeypatch):
    config, tensors = published("llama")
    model, out = our_decoder(config, tensors), tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", lambda *_: sys.exit("killed"))
        with pytest.raises(SystemExit):
            save(out, model, config)
    assert not out.exists()
    (tmp_path / ".out.part" / "left.safetensors").write_text("half")
    save(out, model, config)
    assert sorted(os.listdir(out)) == ["config.json", "model.safetensors"]
    assert os.listdir(tmp_path) == ["out"]
    before = (out / "config.json").read_bytes()
    common.refuses(re.escape(str(out)), lambda: save(out, model.under(make("nope")), config))
    assert (out / "config.json").read_bytes() == before


# Positions alone


GPT2 = dict(model_type="gpt2", n_positions=6, n_embd=8, n_head=2, n_layer=2)
ROBERTA = dict(model_type="roberta", max_position_embeddings=8, hidden_size=8)
OPT = dict(model_type="opt", max_position_embeddings=6, hidden_size=8)


@pytest.mark.parametrize(
    ("config", "name", "reserved"),
    [
        (GPT2, "wpe.weight", 0),
        (GPT2, "transformer.wpe.weight", 0),
        (ROBERTA, "roberta.embeddings.position_embeddings.weight", 2),
        (OPT, "model.decoder.embed_positions.weight", 2),
    ],
)
def test_learned_positions_are_those_of_the_checkpoint(config, name, reserved, tmp_path):
    table = np.random.default_rng(0).standard_normal((6 + reserved, 8)).astype(np.float32)
    path = folder(tmp_path / "in", config, {name: table, "wte.weight": np.zeros((3, 8))})
    encoding = load_encoding(path)
    x_BTD = np.zeros((1, 6, 8), np.float32)
    moved = encoding.at(text(6)).embed(x_BTD)
    np.testing.assert_array_equal(moved[0], table[reserved:])
    assert from_hf(path, rngs=nnx.Rngs(0)).table.shape == (6, 8)


def test_a_large_model_is_several_files(tmp_path, monkeypatch):
    config, tensors = published("phi3")
    monkeypatch.setattr(models, "_SHARD_BYTES", 10_000)
    save(tmp_path / "out", our_decoder(config, tensors), config)
    files = sorted(path.name for path in (tmp_path / "out").glob("*.safetensors"))
    assert files[0] == f"model-00001-of-{len(files):05d}.safetensors" and len(files) > 3
    same_numbers(load(tmp_path / "out").model, our_decoder(config, tensors))


def test_the_program(tmp_path, monkeypatch, capsys):
    config, tensors = published("llama")
    path = folder(tmp_path / "in", config | {"max_position_embeddings": 16}, tensors)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["pretrained", f"--model={path}", *arguments])
        return main()

    out = tmp_path / "out"
    assert run(f"--out={out}", '--encoding={"name": "pi", "factor": 4.0}') == 0
    assert "for 64 tokens" in capsys.readouterr().out
    assert decoder.layers(load(out).config).distinct[0].frequencies.factor == 4.0
    assert run(f"--out={out}") == 2
    assert capsys.readouterr().err.startswith(f"error: {out}")
    assert run(f"--out={tmp_path / 'other'}", '--encoding={"name": "hope"}') == 2
    assert "HoPE" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run()
    assert "--out" in capsys.readouterr().err.splitlines()[-1]
