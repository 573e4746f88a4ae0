"""Reads encodings out of Hugging Face configs, in all the spellings they come in."""

import common
import numpy as np
import pytest
from flax import nnx
from golden_checks import assert_frequencies, by_token, close, rotated

import posenc_jax
from posenc_jax import from_hf


def assert_same(encoding, name, **keywords):
    expected = posenc_jax.make(name, **keywords)
    assert nnx.split(encoding)[0] == nnx.split(expected)[0]


# Against the frequencies and factors of transformers itself

SCALED = [
    "rope_linear_d64_s4",
    "rope_dynamic_d64_s2",
    "rope_dynamic_d128_s1",
    "rope_yarn_llama2_s16",
    "rope_yarn_d64_s4_L512",
    "rope_yarn_dsv3_s40_mscale",
    "rope_yarn_d64_s8_attnfactor",
    "rope_yarn_d32_b500_L16384_highclamp",
    "rope_yarn_d64_s32_notrunc_gptoss",
    "rope_llama3_8b",
    "rope_longrope_d64_factor8",
    "rope_longrope_d96_phi3like",
    "rope_proportional_d64_p75",
    "rope_proportional_d128_p25",
]


def old_spelling(params):
    """Returns the config that transformers 4 would have written for ``params``."""
    section = {"type": params["kind"], **params["rope_parameters"]}
    config = {
        "rope_scaling": section,
        "rope_theta": section.pop("rope_theta"),
        "hidden_size": 4 * params["head_dim"],
        "num_attention_heads": 4,
        "max_position_embeddings": params["max_position_embeddings"],
    }
    for key in ("original_max_position_embeddings", "partial_rotary_factor"):
        if key in section:
            config[key] = section.pop(key)
    return config


def new_spelling(params):
    section = {"rope_type": params["kind"], **params["rope_parameters"]}
    sizes = {key: params[key] for key in ("head_dim", "max_position_embeddings")}
    return {"rope_parameters": section} | sizes


@pytest.mark.parametrize("spelling", [old_spelling, new_spelling])
@pytest.mark.parametrize("name", SCALED)
def test_golden_frequencies(name, spelling):
    arrays, params = common.golden(name)
    encoding = from_hf(spelling(params))
    (factor,) = set(arrays["attention_factor"].ravel().tolist())  # One for each length.
    assert_frequencies(encoding, arrays["inv_freq"], factor)
    for length in filter(None, params["seq_lens"]):
        assert_frequencies(encoding, arrays[f"inv_freq_seq{length}"], factor, length=length)


@pytest.mark.parametrize(
    "name",
    [
        "mrope_chunked_small",
        "mrope_interleaved_small",
        "mrope_interleaved_partial",
        "mrope_interleaved_yarn",
    ],
)
def test_golden_sections(name):
    arrays, section = common.golden(name)
    section = dict(section)
    head_dim = section.pop("head_dim")
    section.setdefault("rope_type", "default")
    if "interleaved" in name:
        section["mrope_interleaved"] = True
    encoding = from_hf(section, head_dim=head_dim)
    positions = np.moveaxis(arrays["position_ids"], 0, -1).astype(np.int32)
    actual = rotated(encoding, by_token(arrays["q"]), positions)
    close(actual, by_token(arrays["q_rot"]), atol=3e-4)


def test_the_section_alone_with_sizes():
    _, params = common.golden("rope_yarn_llama2_s16")
    whole = from_hf(new_spelling(params))
    section = {"rope_type": "yarn", **params["rope_parameters"]}
    alone = from_hf(section, head_dim=128)
    assert nnx.split(alone)[0] == nnx.split(whole)[0]
    by_name = from_hf({"rope_parameters": section}, head_dim=128)
    assert nnx.split(by_name)[0] == nnx.split(whole)[0]
    assert_same(from_hf({"type": "linear", "factor": 2}, head_dim=8), "pi", head_dim=8, factor=2.0)
    axes = {"mrope_section": [1, 2, 1], "rope_theta": 1e4}
    assert_same(from_hf(axes, head_dim=8), "mrope", head_dim=8, sections=(1, 2, 1))
    dynamic = from_hf({"type": "dynamic", "factor": 2.0}, head_dim=8, max_position_embeddings=2048)
    assert_same(dynamic, "dynamic_ntk", head_dim=8, train_length=2048, factor=2.0)


# Configs as they are published, their keys for positions and sizes

LLAMA_SIZES = dict(hidden_size=4096, num_attention_heads=32, max_position_embeddings=4096)
PHI3 = {
    "model_type": "phi3",
    "hidden_size": 192,
    "num_attention_heads": 2,
    "max_position_embeddings": 131072,
    "original_max_position_embeddings": 4096,
    "rope_theta": 10000.0,
    "rope_scaling": {
        "type": "longrope",
        "short_factor": [1.0] * 24 + [1.25] * 24,
        "long_factor": [1.0] * 24 + [32.0] * 24,
    },
}
GEMMA3_NEW = {
    "model_type": "gemma3_text",
    "head_dim": 256,
    "layer_types": ["sliding_attention", "full_attention"],
    "rope_parameters": {
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000000.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
    },
}
GEMMA3_OLD = {
    "model_type": "gemma3_text",
    "head_dim": 256,
    "rope_theta": 1000000.0,
    "rope_local_base_freq": 10000.0,
    "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
}
QWEN2_VL = {
    "model_type": "qwen2_vl",
    "hidden_size": 1536,
    "num_attention_heads": 12,
    "rope_theta": 1000000.0,
    "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
}
GPT_OSS = {
    "model_type": "gpt_oss",
    "head_dim": 64,
    "rope_theta": 150000,
    "max_position_embeddings": 131072,
    "rope_scaling": {
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "factor": 32.0,
        "original_max_position_embeddings": 4096,
        "rope_type": "yarn",
        "truncate": False,
    },
}


@pytest.mark.parametrize(
    ("config", "name", "keywords"),
    [
        (dict(model_type="llama", **LLAMA_SIZES), "rope", dict(head_dim=128)),
        (
            dict(model_type="llama", rope_theta=500000.0, rope_scaling=None, **LLAMA_SIZES),
            "rope",
            dict(head_dim=128, base=500000.0),
        ),
        # A head need not be an equal share of the width.
        (dict(rope_theta=1e6, head_dim=256, **LLAMA_SIZES), "rope", dict(head_dim=256, base=1e6)),
        (
            dict(
                model_type="llama",
                rope_scaling={
                    "type": "yarn",
                    "factor": 16.0,
                    "original_max_position_embeddings": 4096,
                    "finetuned": True,
                },
                **LLAMA_SIZES | {"max_position_embeddings": 65536},
            ),
            "yarn",
            dict(head_dim=128, factor=16.0, train_length=4096),
        ),
        # Qwen3: the length in the config is not the factor times the original one.
        (
            dict(
                model_type="qwen3",
                head_dim=128,
                rope_theta=1000000,
                max_position_embeddings=40960,
                rope_scaling={
                    "rope_type": "yarn",
                    "factor": 4.0,
                    "original_max_position_embeddings": 32768,
                },
            ),
            "yarn",
            dict(head_dim=128, base=1e6, factor=4.0, train_length=32768),
        ),
        (
            GPT_OSS,
            "yarn",
            dict(head_dim=64, base=150000.0, factor=32.0, train_length=4096, truncate=False),
        ),
        (
            dict(model_type="gpt_neox", n_head=8, hidden_size=512, rotary_pct=0.25)
            | dict(rotary_emb_base=10000),
            "rope",
            dict(head_dim=64, rotary_dim=16),
        ),
        (
            dict(model_type="gptj", n_embd=4096, n_head=16, rotary_dim=64),
            "rope",
            dict(head_dim=256, rotary_dim=64, layout="interleaved"),
        ),
        (
            dict(model_type="glm", head_dim=128, partial_rotary_factor=0.5, rope_theta=10000.0),
            "rope",
            dict(head_dim=128, rotary_dim=64, layout="interleaved"),
        ),
        (
            dict(model_type="deepseek_v3", hidden_size=7168, num_attention_heads=128)
            | dict(qk_rope_head_dim=64, head_dim=64, rope_theta=10000.0, rope_interleave=False),
            "rope",
            dict(head_dim=64),
        ),
        (
            PHI3,
            "longrope",
            dict(
                head_dim=96,
                train_length=4096,
                factor=32.0,
                short_factor=PHI3["rope_scaling"]["short_factor"],
                long_factor=PHI3["rope_scaling"]["long_factor"],
            ),
        ),
        (QWEN2_VL, "mrope", dict(head_dim=128, base=1e6)),
        # As transformers itself rewrites it.
        (
            QWEN2_VL
            | {
                "rope_scaling": {
                    "type": "mrope",
                    "rope_type": "default",
                    "mrope_section": [16, 24, 24],
                }
            },
            "mrope",
            dict(head_dim=128, base=1e6, sections=(16, 24, 24)),
        ),
        # The model's code does not look at the flag.
        (
            dict(model_type="qwen3_vl_text", head_dim=128)
            | dict(rope_parameters={"rope_theta": 5e6, "mrope_section": [24, 20, 20]}),
            "i_mrope",
            dict(head_dim=128, base=5e6),
        ),
        (
            dict(model_type="qwen3_5_text", head_dim=256, partial_rotary_factor=0.25)
            | dict(rope_parameters={"rope_theta": 1e7, "mrope_section": [11, 11, 10]}),
            "i_mrope",
            dict(head_dim=256, rotary_dim=64, base=1e7, sections=(11, 11, 10)),
        ),
        # Row, column, time.
        (
            dict(model_type="ernie4_5_vl_moe_text", head_dim=128)
            | dict(rope_parameters={"rope_theta": 5e5, "mrope_section": [22, 22, 20]}),
            "videorope",
            dict(head_dim=128, base=5e5, sections=(20, 22, 22), layout="interleaved"),
        ),
        (
            {
                "text_config": {
                    "head_dim": 128,
                    "rope_parameters": {
                        "rope_type": "default",
                        "rope_theta": 5e6,
                        "mrope_interleaved": True,
                        "mrope_section": [24, 20, 20],
                    },
                }
            },
            "i_mrope",
            dict(head_dim=128, base=5e6, sections=(24, 20, 20)),
        ),
        # A text model in a model of pictures, and a number that is empty in it.
        (
            {
                "rope_theta": None,
                "text_config": {"model_type": "glm4v_text", "head_dim": 8, "rope_theta": 1e4},
            },
            "rope",
            dict(head_dim=8, layout="interleaved"),
        ),
        # The key counts where both it and the model's name say which channels are a pair.
        (
            dict(
                model_type="deepseek_v3", qk_rope_head_dim=8, rope_theta=1e4, rope_interleave=True
            ),
            "rope",
            dict(head_dim=8, layout="interleaved"),
        ),
        (
            dict(model_type="nomic_bert", head_dim=8, rotary_emb_base=1000, rotary_emb_fraction=1.0)
            | dict(rotary_emb_interleaved=False),
            "rope",
            dict(head_dim=8, base=1000.0),
        ),
        # DBRX, whose attn_config is not MPT's.
        (
            dict(model_type="dbrx", d_model=64, n_heads=8, max_seq_len=32)
            | dict(attn_config={"model_type": "", "rope_theta": 500000, "kv_n_heads": 2}),
            "rope",
            dict(head_dim=8, base=500000.0),
        ),
        (dict(model_type="bloom", n_head=16, hidden_size=64), "alibi", dict(num_heads=16)),
        (
            dict(model_type="mpt", n_heads=12, d_model=96, attn_config={"alibi": True}),
            "alibi",
            dict(num_heads=12),
        ),
        (
            dict(model_type="falcon", alibi=True, num_attention_heads=4, hidden_size=64),
            "alibi",
            dict(num_heads=4, slope_scale=0.25),
        ),
        (
            dict(model_type="falcon", alibi=False, num_attention_heads=4, hidden_size=256),
            "rope",
            dict(head_dim=64),
        ),
    ],
)
def test_published_configs(config, name, keywords):
    before = repr(config)
    assert_same(from_hf(config), name, **keywords)
    assert repr(config) == before


@pytest.mark.parametrize("config", [GEMMA3_NEW, GEMMA3_OLD, GEMMA3_NEW["rope_parameters"]])
def test_layers_that_differ(config):
    full = from_hf(config, layer_type="full_attention", head_dim=256)
    assert_same(full, "pi", head_dim=256, base=1e6, factor=8.0)
    sliding = from_hf(config, layer_type="sliding_attention", head_dim=256)
    assert_same(sliding, "rope", head_dim=256)
    for wrong in (None, "chunked_attention"):
        with pytest.raises(ValueError, match="layer_type="):
            from_hf(config, layer_type=wrong, head_dim=256)


def test_bases_beside_the_sections_of_layers():
    sections = {"full_attention": {"rope_type": "linear", "factor": 8.0}, "sliding_attention": {}}
    config = without(GEMMA3_OLD, "rope_scaling") | {"rope_parameters": sections}
    test_layers_that_differ(config)
    sections["full_attention"]["rope_theta"] = sections["sliding_attention"]["rope_theta"] = None
    test_layers_that_differ(config)


def test_layers_without_rope():
    config = {"rope_parameters": {"full_attention": None, "sliding_attention": {"rope_theta": 1e4}}}
    assert_same(from_hf(config, layer_type="full_attention", head_dim=8), "nope")
    sliding = from_hf(config, layer_type="sliding_attention", head_dim=8)
    assert_same(sliding, "rope", head_dim=8)


def test_layout_can_be_told():
    told = from_hf({"rope_theta": 1e4}, head_dim=8, layout="interleaved")
    assert_same(told, "rope", head_dim=8, layout="interleaved")


@pytest.mark.parametrize("one", [{"mscale": 0.7}, {"mscale": 0.7, "mscale_all_dim": 0}])
def test_one_mscale_is_not_read(one):
    """So it is in transformers."""
    assert_same(from_hf(YARN | one, head_dim=8), "yarn", head_dim=8, train_length=512, factor=4.0)


def test_mscales_of_phi_moe():
    scaling = PHI3["rope_scaling"] | {"short_mscale": 1.1, "long_mscale": 1.3}
    encoding = from_hf(PHI3 | {"rope_scaling": scaling})
    assert (encoding.short_attention_factor, encoding.attention_factor) == (1.1, 1.3)
    with pytest.raises(ValueError, match="long_mscale"):
        from_hf(PHI3 | {"rope_scaling": scaling | {"attention_factor": 1.0}})


def test_t5():
    config = dict(
        model_type="t5",
        d_model=64,
        d_kv=8,
        num_heads=4,
        relative_attention_num_buckets=16,
        relative_attention_max_distance=50,
    )
    sizes = dict(num_heads=4, model_dim=64, num_buckets=16, max_distance=50)
    for layer_type in ("encoder", "decoder"):
        encoding = from_hf(config, layer_type=layer_type, rngs=nnx.Rngs(0))
        own = dict(bidirectional=layer_type == "encoder", rngs=nnx.Rngs(0))
        assert_same(encoding, "t5", **sizes, **own)
    with pytest.raises(ValueError, match="layer_type"):
        from_hf(config, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="rngs"):
        from_hf(config, layer_type="decoder")
    del config["relative_attention_max_distance"]
    assert from_hf(config, layer_type="decoder", rngs=nnx.Rngs(0)).max_distance == 128


# Configs with a fault: the key is named

YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


LONGROPE = {
    "rope_type": "longrope",
    "short_factor": [1.0] * 4,
    "long_factor": [2.0] * 4,
    "original_max_position_embeddings": 512,
}


def without(section, key):
    return {k: v for k, v in section.items() if k != key}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("config.json", "config="),
        ({}, "rope_theta"),
        ({"model_type": "zebra9"}, "model_type='zebra9'"),
        ({"model_type": "llama", "rope": "yes"}, "rope='yes': not understood"),
        ({"rope_scaling": [4.0]}, r"rope_scaling=\[4.0\] must be a dict"),
        # Types
        ({"rope_type": "yarm"}, "rope_type=yarm"),
        ({"rope_scaling": {"type": "ntk", "factor": 2.0}}, "rope_type=ntk"),
        (YARN | {"type": "linear"}, "linear and yarn"),
        ({"type": "mrope"}, "mrope_section"),
        # Keys
        (YARN | {"beta_fats": 32}, "beta_fats.*'beta_fast'"),
        (YARN | {"low_freq_factor": 1.0}, "type 'yarn' has an unknown key 'low_freq_factor'"),
        ({"rope_type": "default", "factor": 2.0}, "type 'default' has an unknown key 'factor'"),
        (YARN | {"llama_4_scaling_beta": "0.1"}, "llama_4_scaling_beta='0.1' in rope_parameters"),
        ({"factor": 4.0, "rope_theta": 1e4}, "type 'default' has an unknown key 'factor'"),
        ({"rope_scaling": None, "factor": 4.0}, "has an unknown key 'factor'"),
        (without(YARN, "rope_type"), "type 'default' has an unknown key 'factor'"),
        (without(LLAMA3, "rope_type") | {"rope_theta": 1e4}, "'default' has an unknown key 'fac"),
        ({"short_factor": [1.0] * 4, "rope_theta": 1e4}, "an unknown key 'short_factor'"),
        ({"beta_fast": 32, "rope_theta": 1e4}, "type 'default' has an unknown key 'beta_fast'"),
        ({"rope_type": "linear"}, "type 'linear' lacks 'factor'"),
        ({"rope_type": "linear", "factor": None}, "type 'linear' lacks 'factor'"),
        (without(LLAMA3, "low_freq_factor"), "type 'llama3' lacks 'low_freq_factor'"),
        (without(LLAMA3, "original_max_position_embeddings"), "original_max_position_embeddings"),
        ({"type": "dynamic", "factor": 2.0}, "config lacks max_position_embeddings"),
        # Not max_position_embeddings, which may be the length after it.
        ({"rope_type": "yarn", "factor": 4.0}, "original_max_position_embeddings"),
        (without(YARN, "factor"), "max_position_embeddings"),
        # Values
        ({"rope_type": "linear", "factor": "4"}, "factor='4' in rope_parameters must be a number"),
        ({"rope_type": "linear", "factor": 0.5}, "factor=0.5 in rope_parameters must be .* 1 or"),
        ({"rope_type": "linear", "factor": float("nan")}, "factor=nan"),
        (YARN | {"truncate": "no"}, "truncate="),
        (YARN | {"attention_factor": -1.0}, "attention_factor=-1.0 in rope_parameters"),
        (YARN | {"beta_fast": 0.5}, "beta_fast=0.5 must .* beta_slow=1.0"),
        (YARN | {"rope_theta": "1e4"}, "rope_theta in rope_parameters must be a number above 1"),
        (YARN | {"partial_rotary_factor": 1.5}, r"partial_rotary_factor=1.5 must be .* \(0, 1\]"),
        (
            YARN | {"original_max_position_embeddings": 512.0},
            "original_max_position_embeddings=512.0",
        ),
        (LLAMA3 | {"high_freq_factor": 0.5}, "high_freq_factor=0.5 must "),
        ({"type": "default", "mrope_section": [2, 1]}, "mrope_section="),
        ({"type": "default", "mrope_section": 4}, "mrope_section=4"),
        ({"type": "default", "mrope_interleaved": True}, "mrope_interleaved .* needs mrope_sec"),
        (
            dict(model_type="hunyuan_vl_text", head_dim=8)
            | dict(rope_parameters={"rope_theta": 1e4, "mrope_section": [1, 1, 1, 1]}),
            "mrope_section=",
        ),
        (
            dict(model_type="ernie4_5_vl_moe_text", head_dim=8)
            | dict(rope_parameters={"rope_theta": 1e4, "mrope_section": [2, 1, 1]}),
            r"sections=\(1, 2, 1\) must be of time, row and column, the last two equal",
        ),
        (
            {"type": "default", "mrope_section": [2, 2], "mrope_interleaved": 1},
            "mrope_interleaved=1",
        ),
        (
            PHI3 | {"rope_scaling": PHI3["rope_scaling"] | {"short_factor": [1.0] * 7}},
            "short_factor",
        ),
        (
            PHI3
            | {
                "rope_scaling": PHI3["rope_scaling"]
                | {"short_factor": [1.0] * 4, "long_factor": 4.0}
            },
            "long_factor",
        ),
        # Contradictions
        (
            {"rope_parameters": YARN, "rope_scaling": {"type": "linear", "factor": 2.0}},
            "rope_parameters contradicts rope_scaling",
        ),
        (
            {"rope_parameters": YARN | {"rope_theta": 1e6}, "rope_theta": 1e4},
            r"rope_theta in rope_parameters \(1000000.0\) and rope_theta \(10000.0\)",
        ),
        (
            {"rope_scaling": YARN, "original_max_position_embeddings": 256},
            "original_max_position_embeddings in rope_scaling .*and original_max_position_emb",
        ),
        ({"rope_theta": 1e4, "rotary_pct": 0.5, "rotary_dim": 2}, "rotary_pct=0.5 .*rotary_dim"),
        (
            {"rope_theta": 1e4, "partial_rotary_factor": 0.5, "rotary_pct": 0.25},
            "partial_rotary_factor=0.5 .* and rotary_pct=0.25",
        ),
        (
            {"rope_scaling": without(YARN, "factor"), "max_position_embeddings": 256},
            "max_position_embeddings=256 must not be below original_max_position_embeddings=512",
        ),
        ({"alibi": True, "n_head": 4, "rope_scaling": YARN}, "rope_scaling"),
        # Other schemes
        ({"alibi": "yes"}, "alibi='yes'"),
        ({"alibi": True}, "config lacks num_attention_heads"),
        ({"model_type": "mpt", "attn_config": {"alibi": False}}, "alibi=False"),
        ({"model_type": "mpt", "attn_config": {"alibi_bias_max": 16}}, "alibi_bias_max=16"),
        ({"model_type": "bloom", "n_head": 4, "rope_scaling": YARN}, "rope_scaling"),
        ({"attn_config": "alibi"}, "attn_config='alibi' must be a dict"),
        # Malformed where a type is expected
        ({"rope_type": ["yarn"]}, "rope_type="),
        ({"rope_theta": 1e4, "model_type": ["llama"]}, r"model_type=\['llama'\] must be a string"),
        ({"text_config": "llama"}, "text_config='llama' must be a dict"),
        ({"rope_theta": 1e4, "rope_interleave": "no"}, "rope_interleave='no'"),
        # Not positive, or not even
        (YARN | {"attention_factor": 0}, "attention_factor=0 in rope_parameters makes every logit"),
        (YARN | {"partial_rotary_factor": 0.7}, "partial_rotary_factor=0.7 must turn an even num"),
        ({"rope_theta": 1e4, "rotary_dim": 10}, "rotary_dim must turn an even number .* not 10"),
        # Contradictions that no key by itself shows
        (
            {"rope_scaling": YARN, "max_position_embeddings": 256},
            "max_position_embeddings=256 must not be below original_max_position_embeddings=512",
        ),
        (
            {"rope_scaling": LONGROPE | {"factor": 4.0}, "max_position_embeddings": 4096},
            "factor in rope_scaling",
        ),
        ({"head_dim": 8, "kv_channels": 16, "rope_theta": 1e4}, r"head_dim \(8\) and kv_channels"),
        (
            {"rope_theta": 1e4, "text_config": {"rope_theta": 1e6}},
            "rope_theta contradicts text_config: pass config",
        ),
        # Positions of another kind
        ({"rope_theta": 1e4, "rope_ratio": 50}, "rope_ratio=50: not understood.*posenc_jax.make"),
        ({"rotary_emb_base": 10000, "use_dynamic_ntk": True}, "use_dynamic_ntk=True: not under"),
        ({"rope_theta": 1e4, "layer_rope_theta": "1e4"}, "layer_rope_theta='1e4' must be a list"),
        ({"rope_theta": 1e4, "position_embedding_type": "sine"}, "position_embedding_type='sine'"),
        # Where the whole head would turn
        ({"model_type": "gptj", "rotary_dim": None}, "rotary_dim"),
        # Where the base is not known to be 10000
        ({"model_type": "qwen2", "rope_scaling": YARN}, "rope_theta is missing.*'qwen2'"),
    ],
)
def test_a_fault_is_named(config, message):
    with pytest.raises(ValueError, match=f"(?s){message}"):
        from_hf(config, head_dim=8)


@pytest.mark.parametrize("config", [PHI3, YARN], ids=["config", "section"])
@pytest.mark.parametrize("key", ["factor", "beta_fast", "mrope_section", "rope_type", "type"])
def test_a_key_of_a_section_is_no_keyword(config, key):
    with pytest.raises(ValueError, match=f"{key}=8"):
        from_hf(config, head_dim=8, **{key: 8})


FULL = {"full_attention": {"rope_theta": 1e6}, "sliding_attention": {"rope_theta": 1e4}}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"rope_parameters": FULL | {"rope_theta": 1e6}}, "rope_theta"),
        (
            {"rope_parameters": FULL, "rope_theta": 5e5},
            "rope_theta=500000.0 contradicts rope_theta",
        ),
        (
            {"rope_parameters": FULL, "rope_local_base_freq": 2e4},
            "rope_local_base_freq=20000.0 con",
        ),
        (
            {"rope_parameters": FULL | {"sliding_attention": None}, "rope_theta": 5e5},
            "rope_theta=500000.0 contradicts rope_theta in rope_parameters",
        ),
        ({"alibi": True, "n_head": 4}, "layer_type='full_attention' must be left out: ALiBi"),
        # It would be that of the layers with a window too, whose base is another.
        ({"model_type": "gemma3_text", "rope_parameters": {"rope_theta": 1e6}}, "rope_parameters"),
    ],
)
def test_a_fault_of_layers_is_named(config, message):
    with pytest.raises(ValueError, match=message):
        from_hf(config, layer_type="full_attention", head_dim=8)


def test_a_layout_is_for_rotation():
    with pytest.raises(ValueError, match="layout="):
        from_hf({"alibi": True, "n_head": 4}, layout="half")


def test_a_key_can_be_left_out():
    left_out = from_hf({"rope_theta": 1e4, "rope_ratio": 1}, head_dim=8, rope_ratio=None)
    assert_same(left_out, "rope", head_dim=8)


def test_every_kind_of_layer_without_rope():
    config = {"rope_parameters": {"full_attention": None}}
    assert_same(from_hf(config, layer_type="full_attention", head_dim=8), "nope")


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({}, "head_dim"),
        ({"hidden_size": 64}, "config lacks num_attention_heads"),
        ({"hidden_size": 64, "num_attention_heads": 7}, "64 channels are not 7 equal heads"),
        ({"hidden_size": 64, "n_embd": 32, "n_head": 4}, r"hidden_size \(64\) and n_embd \(32\)"),
        ({"head_dim": 0}, "head_dim=0"),
        ({"head_dim": True}, "head_dim=True"),
        ({"head_dim": 8, "layer_type": "full_attention"}, "layer_type='full_attention' must be"),
        ({"head_dim": 8, "layout": "neox"}, "layout='neox'"),
    ],
)
def test_sizes_are_checked(sizes, message):
    with pytest.raises(ValueError, match=message):
        from_hf({"rope_theta": 1e4}, **sizes)
