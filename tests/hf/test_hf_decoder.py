"""Reads configs of published decoders: sizes, layers, and encodings said in their words."""

import functools
import json

import common
import jax
import numpy as np
import pytest
from flax import nnx

import posenc_jax
from posenc_jax import Layers, Transformer, make
from posenc_jax.hf.pattern import same
from posenc_jax.positions import text
from posenc_jax.pretrained import decoder, gguf, weights
from posenc_jax.pretrained.write import extended, fraction

# Published config.json files, and the numbers of parameters that the models are published with.
DECODERS = json.loads((common.GOLDEN / "hf_decoders.json").read_text())
SMOLLM2, LLAMA31_8B, MISTRAL_7B, QWEN25_7B, _, _, PHI3_MINI, _, SMOLLM3_3B = (
    about["config"] for about in DECODERS.values()
)


def abstract(config, **options) -> Transformer:
    """Returns the model with shapes in the place of numbers."""
    layers, sizes = decoder.layers(config), decoder.sizes(config)
    return jax.eval_shape(lambda: Transformer(layers, **sizes, **options, rngs=nnx.Rngs(0)))


@pytest.mark.parametrize("name", DECODERS)
def test_published_decoders(name):
    config, parameters = DECODERS[name]["config"], DECODERS[name]["parameters"]
    model = abstract(config, scan=True)
    assert sum(p.size for p in jax.tree.leaves(model)) == parameters
    tensors = weights.tensors(weights.of_config(model, config))
    assert sum(int(np.prod(shape)) for shape in tensors.values()) == parameters


def test_windows():
    def windows(config, **keys):
        layers = decoder.layers(config | keys)
        return [layers.at(number)[1] for number in range(config["num_hidden_layers"])]

    assert windows(MISTRAL_7B) == [4096] * 32
    assert windows(MISTRAL_7B, sliding_window=None) == [None] * 32
    assert windows(PHI3_MINI) == [2047] * 32
    assert windows(QWEN25_7B) == [None] * 28
    slide = dict(use_sliding_window=True, sliding_window=64)
    assert windows(QWEN25_7B, **slide, max_window_layers=21) == [None] * 21 + [64] * 7
    assert windows(QWEN25_7B, **slide, max_window_layers=0) == [64] * 28
    kinds = ["sliding_attention", "full_attention"] * 14
    assert windows(QWEN25_7B, **slide, layer_types=kinds) == [64, None] * 14
    smollm3 = dict(use_sliding_window=True, sliding_window=64, layer_types=None)
    assert windows(SMOLLM3_3B, **smollm3) == [None, None, None, 64] * 9
    # Listed windows count whatever the switch says, as in the masks of transformers.
    listed = dict(layer_types=["sliding_attention"] * 36, sliding_window=64)
    assert windows(SMOLLM3_3B, **listed, use_sliding_window=False) == [64] * 36
    # The class of Mistral has one where the config says nothing.
    silent = {key: value for key, value in MISTRAL_7B.items() if key != "sliding_window"}
    assert windows(silent) == [4096] * 32


@pytest.mark.parametrize("name", DECODERS)
def test_kv_heads_where_the_config_says_nothing(name):
    """The class of others has a number of its own, which is not the one of every checkpoint."""
    config = {k: v for k, v in DECODERS[name]["config"].items() if k != "num_key_value_heads"}
    if config["model_type"] in ("llama", "olmo2", "phi3"):
        assert decoder.sizes(config)["num_kv_heads"] == config["num_attention_heads"]
    else:
        common.refuses("num_key_value_heads", lambda: decoder.sizes(config))


@pytest.mark.parametrize(
    ("key", "value"), [("model_type", "mixtral"), ("num_local_experts", 8), ("hidden_act", "gelu")]
)
def test_a_config_that_is_not_understood(key, value):
    config = SMOLLM2 | {key: value}
    common.refuses(f"{key}={value!r}", lambda: (decoder.sizes(config), decoder.layers(config)))


# Encodings in the words of transformers

LENGTHS = (32, 256)
CONFIG = dict(model_type="llama", vocab_size=48, hidden_size=64, intermediate_size=64)
CONFIG |= dict(num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, rms_norm_eps=1e-6)
CONFIG |= dict(rope_theta=1e3, max_position_embeddings=32, hidden_act="silu")
ROPE = dict(head_dim=16, base=1e3)
SAID = {
    "rope": ("default", {}, 32),
    "pi": ("linear", dict(factor=4.0), 128),
    "ntk": ("default", dict(factor=4.0), 128),
    "ntk_critical": ("default", dict(train_length=32, factor=4.0), 128),
    "dynamic_ntk": ("dynamic", dict(train_length=32, factor=2.0), 32),
    "ntk_by_parts": ("llama3", dict(train_length=32, factor=4.0, beta=4.0), 128),
    "llama3": ("llama3", dict(train_length=32, factor=8.0), 256),
    "yarn": ("yarn", dict(train_length=32, factor=4.0, beta_fast=4.0), 128),
    "resonance": ("longrope", {}, 32),
    "longrope": (
        "longrope",
        dict(train_length=32, factor=4.0, long_factor=[1.0, 1.0, 1.5, 2.0, 3.0, 4.0, 4.5, 5.0]),
        128,
    ),
    "longrope2": ("longrope", dict(train_length=32, factor=4.0, attention_factor=1.0), 128),
}


@functools.cache
def _model(model_type):
    return abstract(CONFIG | {"model_type": model_type})


def tables(encoding, length):
    return encoding.at(text(length), length=length).tokens.made


def same_rotations(encoding, other):
    for length in LENGTHS:
        for table, again in zip(tables(encoding, length), tables(other, length), strict=True):
            np.testing.assert_allclose(table, again, rtol=0, atol=2e-5)


@pytest.mark.parametrize("model_type", ["llama", "phi3"])
@pytest.mark.parametrize("name", SAID)
def test_what_is_said_is_read_back(name, model_type):
    config = CONFIG | {"model_type": model_type}
    kind, keywords, longest = SAID[name]
    encoding = make(name, **ROPE, **keywords)
    if model_type == "phi3" and name == "dynamic_ntk":
        model = _model(model_type).under(encoding)
        common.refuses("Phi-3", lambda: extended(config, model))
        return
    written = extended(config, _model(model_type).under(encoding))
    # Phi-3 reads no other type.
    expected = kind if model_type == "llama" or kind == "default" else "longrope"
    assert name == "rope" or written["rope_parameters"]["rope_type"] == expected
    assert written["max_position_embeddings"] == longest
    (again,) = decoder.layers(written).distinct
    same_rotations(encoding, again)
    # Either spelling alone says the same.
    for spelling in ("rope_parameters", "rope_scaling"):
        alone = {key: value for key, value in written.items() if key != spelling}
        assert same(posenc_jax.from_hf(alone), again)


def test_what_rotates_as_before_is_said_as_before():
    assert extended(LLAMA31_8B, abstract(LLAMA31_8B)) == LLAMA31_8B
    # transformers 4 does not know the new spelling, and would take a base of 10000.
    new = {key: value for key, value in CONFIG.items() if key != "rope_theta"}
    new["rope_parameters"] = {"rope_type": "default", "rope_theta": 1e3}
    old = {"rope_theta": 1e3, "rope_scaling": None}
    assert extended(new, abstract(new)) == new | old


def test_layers_without_rotation_stay_so():
    config = SMOLLM3_3B | {"num_hidden_layers": 4, "layer_types": None, "no_rope_layers": None}
    yarn, nope = make("yarn", head_dim=128, base=5e6, train_length=65536, factor=2.0), make("nope")
    model = abstract(config).under([yarn, yarn, yarn, nope])
    written = extended(config, model)
    assert written["max_position_embeddings"] == 131072
    same_rotations(decoder.layers(written).distinct[0], yarn)
    for word, encodings in {
        "layer 0": nope,
        "layer 3": [yarn, yarn, yarn, make("alibi", num_heads=16)],
        "share one": [yarn, yarn, make("pi", head_dim=128, base=5e6, factor=4.0), nope],
        "layer 0.*window of 8": Layers([yarn, yarn, yarn, nope], [8, None, None, None]),
    }.items():
        common.refuses(word, lambda other=encodings: extended(config, model.under(other)))


def test_the_longest_sequence_can_be_told():
    model = abstract(CONFIG).under(make("pi", factor=4.0, **ROPE))
    assert extended(CONFIG, model, 100)["max_position_embeddings"] == 100
    assert extended(CONFIG, _model("llama"), 100)["max_position_embeddings"] == 100
    # 3.2 times 32 is no whole number, and 100 is not 3.2 times 32.
    longrope = make("longrope", factor=3.2, train_length=32, **ROPE)
    for longest in (None, 100):
        written = extended(CONFIG, model.under(longrope), longest)
        same_rotations(posenc_jax.from_hf(written), longrope)
    # Dynamic NTK has its training length there.
    dynamic = make("dynamic_ntk", train_length=64, **ROPE)
    assert same(posenc_jax.from_hf(extended(CONFIG, model.under(dynamic))), dynamic)
    common.refuses("max_length=100", lambda: extended(CONFIG, model.under(dynamic), 100))


def test_part_of_a_head():
    config = CONFIG | {"model_type": "phi3", "partial_rotary_factor": 0.75}
    yarn = make("yarn", head_dim=16, rotary_dim=12, base=1e3, train_length=32, factor=4.0)
    written = extended(config, abstract(config).under(yarn))
    assert written["rope_parameters"]["partial_rotary_factor"] == 0.75
    same_rotations(posenc_jax.from_hf(written), yarn)


def test_every_part_of_a_head_is_read_back():
    """The rotated channels are int(head_dim * partial_rotary_factor)."""
    sizes = [(h, r) for h in range(4, 257, 12) for r in range(2, h, 2)]
    for head_dim, rotary_dim in sizes:
        assert int(head_dim * fraction(rotary_dim, head_dim)) == rotary_dim


@pytest.mark.parametrize(
    ("encoding", "message"),
    [
        (make("rerope", window=8, **ROPE), "ReRoPE"),
        (make("mrope", sections=(2, 3, 3), **ROPE), "axes="),
        (make("rope", rotary_dim=8, **ROPE), "rotary_dim=8 must be 16"),
        (make("rope", layout="interleaved", **ROPE), "layout="),
        (make("longrope", train_length=32, factor=4.0, start_tokens=4, **ROPE), "start_tokens=4"),
        (make("longrope2", train_length=32, factor=4.0, **ROPE), "short_attention_factor="),
    ],
    ids=lambda x: type(x).__name__ if not isinstance(x, str) else "",
)
def test_what_transformers_has_no_word_for(encoding, message):
    model = _model("llama").under(encoding)
    common.refuses(message, lambda: extended(CONFIG, model))


# GGUF

METADATA = {
    "general.architecture": "llama",
    "general.name": "Smol",
    "llama.block_count": 30,
    "llama.context_length": 8192,
    "llama.embedding_length": 576,
    "llama.feed_forward_length": 1536,
    "llama.attention.head_count": 9,
    "llama.attention.head_count_kv": 3,
    "llama.attention.layer_norm_rms_epsilon": 9.999999747378752e-06,
    "llama.rope.freq_base": 100000.0,
    "llama.rope.dimension_count": 64,
    "llama.vocab_size": 49152,
    "tokenizer.ggml.bos_token_id": 1,
}


def of_gguf(**scaling):
    """Returns the encoding of the metadata with these keys of rope.scaling."""
    scaling = {f"llama.rope.scaling.{key}": value for key, value in scaling.items()}
    return posenc_jax.from_hf(gguf.config_of(METADATA | scaling, 49152, tied=True))


def test_metadata_of_gguf():
    config = gguf.config_of(METADATA, 49152, tied=True)
    assert decoder.sizes(config) == decoder.sizes(SMOLLM2)
    assert same(*(decoder.layers(c).distinct[0] for c in (config, SMOLLM2)))
    scaling = dict(type="yarn", factor=4.0, original_context_length=2048)
    yarn = make("yarn", head_dim=64, base=1e5, train_length=2048, factor=4.0)
    # As written by llama.cpp, attn_factor multiplies YaRN's own: 1.0 is the ordinary one.
    assert same(of_gguf(**scaling), yarn) and same(of_gguf(**scaling, attn_factor=1.0), yarn)
    _, factor = of_gguf(**scaling, attn_factor=0.5).frequencies(64, 1e5, 1)
    assert factor == 0.5 * (1 + 0.1 * np.log(4))


def test_a_size_that_gguf_leaves_out_is_named():
    for size, key in (("embedding_length", "hidden_size"), ("attention.head_count", "num_att")):
        metadata = {name: x for name, x in METADATA.items() if name != f"llama.{size}"}
        config = gguf.config_of(metadata, 49152, tied=True)
        common.refuses(key, lambda config=config: decoder.sizes(config))


@pytest.mark.parametrize(
    ("scaling", "factor"),
    [
        (dict(factor=4.0), 4),
        (dict(type="linear", factor=4.0, original_context_length=2048), 4),
        (dict(type="linear"), 1),
        (dict(factor=0.0), 1),
        (dict(type="none", factor=4.0), 1),
        (dict(type="yarn"), 1),
    ],
)
def test_scaling_that_gguf_leaves_out(scaling, factor):
    """llama.cpp takes a missing type as linear, and a missing factor as 1."""
    slowest = of_gguf(**scaling).frequencies(64, 1e5, 1)[0][-1]
    np.testing.assert_allclose(slowest, 1e5 ** (-31 / 32) / factor)
