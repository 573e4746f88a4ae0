"""Makes small published models in files, as tests read them."""

import json

import common
import gguf
import numpy as np
import tokenizers
from hf_models import our_decoder
from safetensors.numpy import save_file

from posenc_jax.pretrained import weights
from posenc_jax.pretrained.files import INDEX

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
    """Writes a model as a folder on the hub has it, in as many files as asked for."""
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


TEXT = "The cat sat.\n\n  It's 1234567 o'clock\tin Zürich — 東京, naïve 😀! we'll  see x1y22z\r\n"

MERGES = ("Ġ t", "h e", "Ġt he", "T he", "1 2", "3 4", "12 34", "c a", "ca t", "Ġ cat", "Ã ¼")


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
