"""Reads encodings out of Hugging Face configs: spellings, single models, layers and faults.

``test_golden_hf`` and ``test_published`` compare each model type with transformers and with a small
formula. Here are what configs of the same type may say in other words, and faults.
"""

import json
import re

import common
import jax
import numpy as np
import pytest
from flax import nnx
from golden_checks import assert_frequencies

import posenc_jax
from posenc_jax import from_hf, layers_from_hf, sinks_from_hf
from posenc_jax.hf.families import FAMILIES, TEXT_PARTS
from posenc_jax.hf.refused import REFUSED
from posenc_jax.pretrained import weights

RELEASED = json.loads((common.GOLDEN / "hf_configs.json").read_text())["cases"]
# What configs of the same type may say in other words, and the encoding of each or a word of the
# error; ``told`` are the keywords of ``from_hf`` beside the config.
SPELLINGS = json.loads((common.GOLDEN / "hf_spellings.json").read_text())


def assert_same(encoding, name, **keywords):
    expected = posenc_jax.make(name, **keywords)
    assert nnx.split(encoding)[0] == nnx.split(expected)[0]


@pytest.mark.parametrize("case", RELEASED, ids=lambda case: case["name"])
def test_released_configs(case):
    """The cases say themselves what is right, and where a refusal is right as well."""
    if case["expect"].startswith("refuse"):
        with pytest.raises(ValueError):
            from_hf(case["config"], **case["call"])
        if "accepts" in case:
            from_hf(case["config"], **case["call"], **case["accepts"])
        return
    try:
        encoding = from_hf(case["config"], **case["call"])
    except ValueError:
        assert case.get("refusal_is_fine")
        return
    if case["expect"] == "nope":
        assert_same(encoding, "nope")
        return
    assert (encoding.layout, encoding.rotary_dim) == (case["layout"], case["rotary_dim"])
    assert encoding.head_dim == case["head_channels"] and case["rotated"] in ("all", "first")
    assert encoding.axes == (case["axes"] and tuple(case["axes"]))
    assert_frequencies(encoding, np.array(case["inv_freq"]), case["attention_factor"])


def test_every_model_is_known_or_refused():
    assert not FAMILIES.keys() & REFUSED.keys()
    assert set(TEXT_PARTS.values()) <= FAMILIES.keys()


@pytest.mark.parametrize("value", [0, 2048.5, "2048"])
@pytest.mark.parametrize("function", [from_hf, layers_from_hf, sinks_from_hf])
def test_a_length_must_be_positive(function, value):
    """Also where nothing reads it: plain RoPE has the same rates at every length."""
    config = dict(model_type="llama", hidden_size=64, num_attention_heads=4, rope_theta=1e4)
    config |= dict(num_hidden_layers=2, max_position_embeddings=value)
    common.refuses(f"max_position_embeddings={value!r}", lambda: function(config))


# Against the frequencies and factors of transformers itself, in both spellings

SCALED = ["rope_linear_d64_s4", "rope_dynamic_d64_s2", "rope_dynamic_d128_s1"]
SCALED += ["rope_yarn_llama2_s16", "rope_yarn_dsv3_s40_mscale", "rope_yarn_d64_s8_attnfactor"]
SCALED += ["rope_yarn_d32_b500_L16384_highclamp", "rope_yarn_d64_s32_notrunc_gptoss"]
SCALED += ["rope_yarn_d64_s4_L512", "rope_llama3_8b", "rope_longrope_d64_factor8"]
SCALED += ["rope_longrope_d96_phi3like", "rope_proportional_d64_p75", "rope_proportional_d128_p25"]


def old_spelling(params):
    """Returns the config that transformers 4 would have written for ``params``."""
    section = {"type": params["kind"], **params["rope_parameters"]}
    outside = {"rope_theta", "original_max_position_embeddings", "partial_rotary_factor"}
    config = {key: section.pop(key) for key in outside & section.keys()}
    config |= dict(rope_scaling=section, hidden_size=4 * params["head_dim"], num_attention_heads=4)
    return config | {"max_position_embeddings": params["max_position_embeddings"]}


def new_spelling(params):
    section = {"rope_type": params["kind"], **params["rope_parameters"]}
    sizes = {key: params[key] for key in ("head_dim", "max_position_embeddings")}
    return {"rope_parameters": section} | sizes


@pytest.mark.parametrize("name", SCALED)
def test_golden_frequencies(name):
    arrays, params = common.golden(name)
    encoding = from_hf(new_spelling(params))
    assert nnx.split(from_hf(old_spelling(params)))[0] == nnx.split(encoding)[0]
    (factor,) = set(arrays["attention_factor"].ravel().tolist())  # One for each length.
    assert_frequencies(encoding, arrays["inv_freq"], factor)
    for length in filter(None, params["seq_lens"]):
        assert_frequencies(encoding, arrays[f"inv_freq_seq{length}"], factor, length=length)


@pytest.mark.parametrize("case", SPELLINGS["read"], ids=lambda case: case["about"])
def test_read(case):
    config, before = case["config"], repr(case["config"])
    assert_same(from_hf(config, **case["told"]), case["scheme"], **case["keywords"])
    assert repr(config) == before


def test_t5():
    config = dict(model_type="t5", d_model=64, num_heads=4, relative_attention_num_buckets=16)
    sizes = dict(num_heads=4, model_dim=64, num_buckets=16)
    for layer_type in ("encoder", "decoder"):
        encoding = from_hf(config, layer_type=layer_type, rngs=nnx.Rngs(0))
        of_stack = dict(bidirectional=layer_type == "encoder", rngs=nnx.Rngs(0))
        assert_same(encoding, "t5", **sizes, **of_stack)
    other = config | {"relative_attention_max_distance": 50}
    far = from_hf(other, layer_type="decoder", rngs=nnx.Rngs(0))
    assert (encoding.max_distance, far.max_distance) == (128, 50)


def test_ministral_scales_queries_from_the_start_of_each_step():
    section = dict(rope_type="yarn", rope_theta=1e6, factor=16.0, llama_4_scaling_beta=0.1)
    section |= dict(original_max_position_embeddings=4)
    config = dict(head_dim=8, rope_parameters=section)
    encoding = from_hf(config | {"model_type": "ministral3"})
    assert_same(encoding.inner, "yarn", head_dim=8, base=1e6, factor=16.0, train_length=4)
    assert nnx.split(from_hf(config, layout="half"))[0] == nnx.split(encoding)[0]
    # At distance 0 logits of equal queries and keys differ by the scale alone.
    ones, here = np.ones((1, 12, 1, 8), np.float32), np.arange(12)[None]
    logits, plain = (posenc_jax.logits(e.at(here), ones, ones) for e in (encoding, encoding.inner))
    steps = 1 + 0.1 * np.log(1 + np.arange(12) // 4)
    common.close(np.diagonal(logits[0, 0]), steps * np.diagonal(plain[0, 0]))


@pytest.mark.parametrize("case", SPELLINGS["refused"], ids=lambda case: case["says"])
def test_refused(case):
    common.refuses(f"(?s){case['says']}", lambda: from_hf(case["config"], **case["told"]))


@pytest.mark.parametrize("content", [b'{"model_type": ', b"\xff\xfe"])
def test_a_file_that_is_no_json_is_named(content, tmp_path):
    (tmp_path / "config.json").write_bytes(content)
    common.refuses(re.escape(f"{tmp_path / 'config.json'}"), lambda: from_hf(tmp_path))


# All layers


def test_layers_with_learned_rates_are_ready_for_the_decoder():
    config = dict(model_type="mistral_large4_text", num_attention_heads=4, rope_theta=1e4)
    config |= dict(num_hidden_layers=8, qk_nope_head_dim=2, qk_rope_head_dim=6)

    def model():
        layers = layers_from_hf(config, rngs=nnx.Rngs(0))
        sizes = dict(vocab_size=8, model_dim=32, num_layers=8, num_heads=4, head_dim=8, scan=True)
        return posenc_jax.Transformer(layers, **sizes, rngs=nnx.Rngs(0))

    outline, ids = jax.eval_shape(model), np.arange(6)[None]
    assert jax.eval_shape(lambda model: model(ids), outline).shape == (1, 6, 8)
    paths = weights.parameters(outline)
    assert [path for path in paths if "alpha" in path] == ["encodings/0/inner/alpha"]


IQUEST = dict(model_type="iquest_q1", num_hidden_layers=8, num_hybrid_layers_block=1)
EVERY = {"layer_types": ["full_attention"] * 4}
MIMO = {"model_type": "mimo_v2_flash"}


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"model_type": "gpt_oss"}, ["head"] * 4),
        ({"model_type": "granite_swa"} | EVERY, ["head"] * 4),
        ({"model_type": "llama"}, [None] * 4),
        (MIMO | {"layer_types": ["full_attention", "sliding_attention"] * 2}, [None, "head"] * 2),
        ({"model_type": "zebra9"}, "'zebra9' is not known"),
        (IQUEST, "kv head"),
        (IQUEST | {"enable_sink_attention": False}, [None] * 8),
        (MIMO, [None, "head", "head", "head"]),
        ({"model_type": "cwm"}, "layer_types is missing"),
        ({"model_type": "gpt_oss", "num_hidden_layers": None}, "config lacks num_hidden_layers"),
    ],
)
def test_sinks_by_layer(keys, expected):
    config = {"num_hidden_layers": 4} | keys
    if isinstance(expected, str):
        common.refuses(expected, lambda: sinks_from_hf(config))
    else:
        assert sinks_from_hf(config) == expected
