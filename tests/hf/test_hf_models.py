"""Tests ``from_hf`` on single models: kinds of layers, layers without positions, refusals."""

import json
import re

import common
import numpy as np
import pytest
from flax import nnx
from golden_checks import assert_frequencies

import posenc_jax
from posenc_jax import from_hf, layers_from_hf, sinks_from_hf
from posenc_jax.hf.table import KNOWN, REFUSED, TEXT_PARTS
from posenc_jax.pretrained import weights
from posenc_jax.registry import keywords, lookup

CASES = json.loads((common.GOLDEN / "hf_configs.json").read_text())["cases"]


def assert_same(encoding, name, **keywords):
    expected = posenc_jax.make(name, **keywords)
    assert nnx.split(encoding)[0] == nnx.split(expected)[0]


def refused(config, message=".", **arguments):
    """Checks the error, and that it does not advise to leave a key of the config out."""
    with pytest.raises(ValueError, match=message) as error:
        from_hf(config, **arguments)
    said = str(error.value).replace("layer_type=None", "")
    assert "=None" not in said and "drop" not in said


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_released_configs(case):
    """The cases say themselves what is right, and where a refusal is right as well."""
    if case["expect"].startswith("refuse"):
        refused(case["config"], **case["call"])
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
    axes = case["axes"] and tuple(case["axes"])
    assert encoding.axes == axes
    assert_frequencies(encoding, np.array(case["inv_freq"]), case["attention_factor"])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_released_configs_that_must_be_answered(case):
    """A refusal where none is allowed is a fault too."""
    if not case["expect"].startswith("refuse") and not case.get("refusal_is_fine"):
        from_hf(case["config"], **case["call"])


def test_an_unknown_model_needs_a_layout():
    config = dict(model_type="zebra9", head_dim=8, rope_theta=1e4)
    refused(config, "model_type='zebra9' is not known.*layout='half' or layout='interleaved'")
    assert_same(from_hf(config, layout="half"), "rope", head_dim=8)
    # Another word of the config about its pairs is not enough.
    refused(config | {"rope_interleave": True}, "is not known")
    refused(dict(model_type="zebra9", alibi=True, n_head=4), "is not known")
    refused(
        dict(model_type="zebra9", num_heads=4, relative_attention_num_buckets=8), "is not known"
    )


def test_every_model_is_known_or_refused():
    assert not KNOWN & REFUSED.keys()
    assert set(TEXT_PARTS.values()) <= KNOWN


# Which channels turn, and how many

DEEPSEEK = dict(qk_rope_head_dim=16, qk_nope_head_dim=24, hidden_size=64, num_attention_heads=4)


@pytest.mark.parametrize("model_type", ["kimi_k2", "deepseek_v3", "axk2", "glm_moe_dsa", "youtu"])
def test_relatives_of_deepseek_turn_neighbours(model_type):
    config = DEEPSEEK | dict(model_type=model_type, rope_theta=1e4)
    assert_same(from_hf(config), "rope", head_dim=16, layout="interleaved")
    del config["qk_rope_head_dim"]
    refused(config, "config lacks qk_rope_head_dim")


def test_a_share_of_a_whole_head_shrinks_nothing_twice():
    config = DEEPSEEK | dict(model_type="mistral4", rope_theta=1e4, partial_rotary_factor=0.4)
    assert_same(from_hf(config), "rope", head_dim=16, layout="interleaved")
    refused(
        config | {"partial_rotary_factor": 0.5}, "partial_rotary_factor=0.5 contradicts qk_rope"
    )


def test_nanochat_turns_the_other_way():
    encoding = from_hf(dict(model_type="nanochat", head_dim=8, rope_theta=1e4))
    straight = posenc_jax.make("rope", head_dim=8)
    assert_frequencies(encoding, -straight.frequencies(8, 1e4, 1)[0])
    yarn = {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}
    refused(dict(model_type="nanochat", head_dim=8, rope_parameters=yarn), "rope_type")


def test_zamba2():
    config = dict(
        model_type="zamba2",
        hidden_size=3584,
        num_attention_heads=32,
        attention_head_dim=224,
        kv_channels=112,
        rope_theta=10000,
        use_mem_rope=True,
    )
    assert_same(from_hf(config), "rope", head_dim=224)
    del config["attention_head_dim"]
    assert_same(from_hf(config), "rope", head_dim=224)
    assert_same(from_hf(config | {"use_mem_rope": False}), "nope")
    del config["use_mem_rope"]
    assert_same(from_hf(config), "nope")


def test_bamba():
    sizes = dict(model_type="bamba", hidden_size=512, num_attention_heads=4, rope_theta=1e4)
    for keys in ({}, {"attn_rotary_emb": 64}, {"partial_rotary_factor": 0.5}):
        assert_same(from_hf(sizes | keys), "rope", head_dim=128, rotary_dim=64)
    refused(sizes | {"attn_rotary_emb": 32, "partial_rotary_factor": 0.5}, "contradiction")


def test_what_a_class_fills_in():
    """A class fills in keys that a published config lacks, where the usual rule would be wrong."""
    gemma = dict(
        model_type="gemma3",
        text_config={
            "hidden_size": 2560,
            "model_type": "gemma3_text",
            "num_hidden_layers": 34,
            "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
            "sliding_window": 1024,
        },
    )
    full = from_hf(gemma, layer_type="full_attention")
    assert_same(full, "pi", head_dim=256, base=1e6, factor=8.0)
    assert_same(from_hf(gemma, layer_type="sliding_attention"), "rope", head_dim=256)
    qwen = dict(model_type="qwen3", hidden_size=1024, num_attention_heads=16, rope_theta=1e6)
    assert_same(from_hf(qwen), "rope", head_dim=128, base=1e6)
    phi = dict(model_type="phi", hidden_size=256, num_attention_heads=4, rope_theta=1e4)
    assert_same(from_hf(phi), "rope", head_dim=64, rotary_dim=32)


def test_a_key_that_the_code_does_not_read_is_refused():
    config = dict(model_type="minimax_m3_vl_text", head_dim=128, rope_theta=5e6, rotary_dim=64)
    refused(config, "rotary_dim=64")
    part = config | {"partial_rotary_factor": 0.5}
    assert_same(from_hf(part), "rope", head_dim=128, rotary_dim=64, base=5e6)


@pytest.mark.parametrize(
    "key", ["partial_rotary_factor", "rotary_pct", "rope_pct", "rotary_emb_fraction"]
)
def test_proportional_reads_every_spelling_of_its_fraction(key):
    sizes = dict(head_dim=16, rope_theta=1e4, rope_scaling={"type": "proportional"})
    assert_same(from_hf(sizes | {key: 0.25}), "p_rope", head_dim=16, fraction=0.25)
    refused(sizes | {key: 0.25, "rotary_dim": 8}, "contradiction between .*rotary_dim")
    assert_same(from_hf(sizes | {key: 0.25, "rotary_dim": 4}), "p_rope", head_dim=16, fraction=0.25)
    refused(sizes | {"rotary_dim": 4}, "rotary_dim")
    phi = from_hf(sizes | {"model_type": "phi"})
    assert_same(phi, "p_rope", head_dim=16, fraction=0.5)
    assert_same(from_hf(sizes), "p_rope", head_dim=16, fraction=1.0)


def test_neomme_has_rows_and_columns():
    sections = {
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        "full_attention": {"rope_theta": 1e6, "partial_rotary_factor": 0.25},
    }
    config = dict(model_type="neomme", head_dim=64, rope_parameters=sections)
    sliding = from_hf(config, layer_type="sliding_attention")
    assert_same(sliding, "rope", head_dim=64, axes=(0, 1) * 16)
    full = from_hf(config, layer_type="full_attention")
    assert_same(full, "rope", head_dim=64, rotary_dim=16, base=1e6, axes=(0, 1) * 4)


def test_sections_that_a_config_leaves_out():
    config = dict(model_type="qwen3_vl_text", head_dim=128, rope_theta=5e6)
    assert_same(from_hf(config), "i_mrope", head_dim=128, base=5e6, sections=(24, 20, 20))


@pytest.mark.parametrize(
    "model_type", ["pixtral", "qwen2_vl_vision", "dinov3_vit", "inkling2_text", "deepseek_v4"]
)
def test_what_is_not_rope_is_refused_whatever_the_layout(model_type):
    config = dict(model_type=model_type, head_dim=64, rope_theta=1e4)
    for layout in (None, "half"):
        refused(config, f"model_type='{model_type}' is not offered by from_hf: ", layout=layout)


@pytest.mark.parametrize(
    ("model_type", "names"),
    [
        ("inkling_text", ["inkling"]),
        ("inkling2_text", ["inkling2"]),
        ("inkling2_loop_text", ["inkling2"]),
        ("dinov3_vit", ["dinov3"]),
        ("deepseek_v4", ["value_rope"]),
    ],
)
def test_a_refusal_names_the_encoding_that_the_model_has(model_type, names):
    """And keywords of it, which exist."""
    with pytest.raises(ValueError, match=rf"posenc_jax.make\('{names[0]}'") as error:
        from_hf(dict(model_type=model_type, head_dim=64, rope_theta=1e4))
    said = str(error.value)
    assert all(f"'{name}'" in said for name in names)
    make = said[said.index("make('") :]
    given = {*re.findall(r"(\w+)=", make), *re.findall(r"'(\w+)':", make)}
    known = {key for name in names for key in keywords(lookup(name))}
    others = {"name", "scale", "attention_factor", "others"}  # Of attend, YaRN and the grid.
    assert given <= known | others and len(given & known) >= 2


MISTRAL_LARGE_4 = dict(
    model_type="mistral_large4_text",
    num_attention_heads=4,
    num_hidden_layers=8,
    qk_nope_head_dim=2,
    qk_rope_head_dim=6,
    rope_theta=1e4,
)


def test_learned_rates_need_a_checkpoint():
    """Without ``rngs=`` nobody would learn that the answer is not that of the checkpoint."""
    refused(MISTRAL_LARGE_4, r"needs rngs=nnx.Rngs\(0\).*from the checkpoint", layer=0)
    with pytest.raises(ValueError, match="rngs"):
        layers_from_hf(MISTRAL_LARGE_4)
    for rope in (
        {"rope_type": "default", "mrope_section": [1, 1, 1]},
        dict(rope_type="longrope", short_factor=[1.0] * 3, long_factor=[2.0] * 3),
    ):
        config = MISTRAL_LARGE_4 | {"rope_parameters": rope, "max_position_embeddings": 64}
        config |= {"original_max_position_embeddings": 32}
        refused(config, "rotary section", layer=0, rngs=nnx.Rngs(0))


@pytest.mark.parametrize("scan", [False, True])
def test_layers_with_learned_rates_are_ready_for_the_decoder(scan):
    config = MISTRAL_LARGE_4 | {"num_hidden_layers": 4 if not scan else 8}
    layers = layers_from_hf(config, rngs=nnx.Rngs(0))
    count = config["num_hidden_layers"]
    sizes = dict(vocab_size=8, model_dim=32, num_layers=count, num_heads=4, head_dim=8, scan=scan)
    model = posenc_jax.Transformer(layers, **sizes, rngs=nnx.Rngs(0))
    assert model(np.arange(6)[None], posenc_jax.positions.text(6)).shape == (1, 6, 8)
    paths = weights.parameters(model)
    assert [path for path in paths if "alpha" in path] == ["encodings/0/inner/alpha"]


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"model_type": "gpt_oss"}, ["head"] * 4),
        ({"model_type": "granite_swa", "layer_types": ["full_attention"] * 4}, ["head"] * 4),
        ({"model_type": "llama"}, [None] * 4),
        ({"model_type": "mimo_v2_flash", "layer_types": ["full_attention"] * 4}, [None] * 4),
        (
            {
                "model_type": "mimo_v2_flash",
                "layer_types": ["full_attention", *["sliding_attention"] * 3],
            },
            [None, "head", "head", "head"],
        ),
    ],
)
def test_sinks_by_layer(keys, expected):
    assert sinks_from_hf({"num_hidden_layers": 4} | keys) == expected


def test_sinks_that_are_not_known():
    for keys, message in (
        ({"model_type": "zebra9"}, "'zebra9' is not known"),
        ({"model_type": "mimo_v2_flash"}, "layer_types is missing"),
        ({"model_type": "deepseek_v4"}, "not offered by from_hf.*sinks"),
        ({"model_type": "gpt_oss", "num_hidden_layers": None}, "config lacks num_hidden_layers"),
    ):
        with pytest.raises(ValueError, match=message):
            sinks_from_hf({"num_hidden_layers": 4} | keys)


def test_axial_sections_are_refused():
    config = dict(model_type="llama", head_dim=8, rope_parameters={"rope_type": "axial"})
    refused(config, "rope_type=axial")


# Switches, and other words for the same

LLAMA = dict(model_type="llama", head_dim=8, rope_theta=1e4)


@pytest.mark.parametrize("key", ["use_rope", "use_rotary_pos_emb", "rotary"])
def test_a_switch_that_is_off_is_nope(key):
    assert_same(from_hf(LLAMA | {key: True}), "rope", head_dim=8)
    assert_same(from_hf(LLAMA | {key: False}), "nope")
    refused(LLAMA | {key: 0}, f"{key}=0")


def test_kinds_of_positions():
    cohere = dict(model_type="cohere", head_dim=8, rope_theta=1e4)
    gptj = cohere | {"position_embedding_type": "rope_gptj"}
    assert_same(from_hf(gptj), "rope", head_dim=8, layout="interleaved")
    refused(LLAMA | {"position_embedding_type": "rope_gptj"}, "position_embedding_type='rope_gptj'")
    assert_same(from_hf(LLAMA | {"position_embedding_type": "nope"}), "nope")
    refused(LLAMA | {"position_embedding_type": "absolute"}, "position_embedding_type='absolute'")
    granite = LLAMA | {"model_type": "granitemoehybrid"}
    assert_same(from_hf(granite), "nope")
    assert_same(from_hf(granite | {"position_embedding_type": "rope"}), "rope", head_dim=8)
    esm = dict(model_type="esm", head_dim=8)
    refused(esm, "position_embedding_type='absolute'")
    assert_same(from_hf(esm | {"position_embedding_type": "rotary"}), "rope", head_dim=8)


@pytest.mark.parametrize("model_type", ["kimi_linear", "jamba", "nemotron_h"])
def test_models_without_positions(model_type):
    config = dict(model_type=model_type, rope_theta=1e4, head_dim=8, partial_rotary_factor=1)
    assert_same(from_hf(config), "nope")


@pytest.mark.parametrize("model_type", ["llama", "gpt_neox"])
def test_alibi_is_for_models_that_read_it(model_type):
    config = LLAMA | {"model_type": model_type, "num_attention_heads": 4}
    assert_same(from_hf(config | {"rotary_pct": 1.0, "alibi": False}), "rope", head_dim=8)
    refused(config | {"alibi": True}, "alibi=true")


def test_keys_beside_a_bias_are_checked():
    bloom = dict(model_type="bloom", n_head=4, offset_alibi=100)
    assert_same(from_hf(bloom), "alibi", num_heads=4)
    refused(bloom | {"use_logn_attn": True}, "use_logn_attn=True: not understood")
    own = {"alibi": True, "rope": False, "rope_theta": 10000, "rope_impl": "dail"}
    own |= {"rope_dail_config": {"type": "original"}, "rope_hf_config": {"type": "no_scaling"}}
    mpt = dict(model_type="mpt", n_heads=4, d_model=8, attn_config=own)
    assert_same(from_hf(mpt), "alibi", num_heads=4)
    refused(mpt | {"attn_config": own | {"rope": True}}, "alibi=true")
    refused(LLAMA | {"rope": False}, "rope=False: not understood")
    refused(LLAMA | {"offset_alibi": 100}, "offset_alibi=100: not understood")
    t5 = dict(model_type="t5", num_heads=4, d_model=8, relative_attention_num_buckets=8)
    own = dict(layer_type="encoder", rngs=nnx.Rngs(0))
    refused(t5 | {"use_logn_attn": True}, "use_logn_attn=True: not understood", **own)


def test_mla_use_nope():
    config = dict(model_type="kimi_linear", mla_use_nope=False, qk_rope_head_dim=8)
    refused(config, "mla_use_nope")
    assert_same(from_hf(LLAMA | {"mla_use_nope": True}), "nope")


@pytest.mark.parametrize(
    "key", ["rope_ratio", "attn_rotary_scale", "use_dynamic_ntk", "rope_3d", "ntk_alpha_rope"]
)
def test_advice_never_leaves_a_key_out(key):
    refused(LLAMA | {key: True}, f"{key}=True: not understood.*posenc_jax.make")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("no_rope_layer_interval", 4),
        ("no_rope_layers", []),
        ("attn_temperature_tuning", True),
        ("attn_temperature_tuning", 4),
    ],
)
def test_what_only_known_models_do_is_not_understood_of_others(key, value):
    config = dict(head_dim=8, rope_theta=1e4, num_hidden_layers=4, floor_scale=8192) | {key: value}
    refused(config, f"{key}=.*: not understood")
    refused(config | {"model_type": "zebra9"}, f"{key}=.*: not understood", layout="half")
    assert_same(from_hf(config | {"model_type": "qwen2"}), "rope", head_dim=8)
    listed = {"head_dim": 8, "rope_theta": 1e4, "no_rope_layers": [1, 0]}
    listed |= {"attn_temperature_tuning": False}
    assert_same(from_hf(listed, layer=1), "nope")


def test_every_key_that_is_not_understood_is_named():
    refused(LLAMA | {"rope_3d": True, "my_rope": 0}, "rope_3d=True and my_rope=0: not understood")
    off = {"rope_ratio": 1, "use_logn_attn": False, "indexer_rope_interleave": True}
    assert_same(from_hf(LLAMA | off), "rope", head_dim=8)


def test_published_and_valid():
    scout = {
        "rope_type": "llama3",
        "factor": 16.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 1.0,
        "original_max_position_embeddings": 8192,
    }
    config = dict(model_type="llama4_text", head_dim=128, rope_theta=5e5, num_hidden_layers=48)
    config |= dict(rope_scaling=scout, max_position_embeddings=10485760, no_rope_layers=[])
    encoding = from_hf({"model_type": "llama4", "text_config": config}, layer=0)
    inv_freq = 5e5 ** -(np.arange(64) / 64)
    slow = 2 * np.pi / inv_freq > 8192
    assert_frequencies(encoding, np.where(slow, inv_freq / 16, inv_freq))
    assert encoding.layout == "interleaved"

    kimi = {
        "type": "yarn",
        "factor": 32.0,
        "beta_fast": 1.0,
        "beta_slow": 1.0,
        "mscale": 1.0,
        "mscale_all_dim": 1.0,
        "original_max_position_embeddings": 4096,
    }
    config = dict(model_type="kimi_k2", qk_rope_head_dim=64, rope_theta=5e4, rope_scaling=kimi)
    encoding = from_hf(config | {"max_position_embeddings": 131072})
    inv_freq = 5e4 ** -(np.arange(32) / 32)
    turn = 64 * np.log(4096 / (2 * np.pi)) / (2 * np.log(5e4))
    ramp = np.clip((np.arange(32) - np.floor(turn)) / (np.ceil(turn) - np.floor(turn)), 0, 1)
    assert_frequencies(encoding, inv_freq * (1 - ramp + ramp / 32))


def test_parts_of_parts():
    inner = dict(model_type="qwen2_5_omni_text", head_dim=128, rope_theta=1e6)
    omni = {"thinker_config": {"text_config": inner, "audio_config": {"rope": 1}}}
    assert_same(from_hf(omni), "mrope", head_dim=128, base=1e6, sections=(16, 24, 24))
    internvl = {"model_type": "internvl_chat", "llm_config": LLAMA}
    assert_same(from_hf(internvl), "rope", head_dim=8)
    parts = dict(model_type="t5gemma", encoder=LLAMA, decoder=LLAMA)
    refused(parts, r"has several parts: pass .*config\['encoder'\], config\['decoder'\]")
    # The part of a model that is not known is not known either.
    refused({"model_type": "zebra9", "text_config": {"rope_theta": 1e4, "head_dim": 8}}, "zebra9")


def test_hunyuan():
    section = {"type": "dynamic", "alpha": 1000.0, "factor": 1.0, "beta_fast": 32, "mscale": 1.0}
    config = LLAMA | {"model_type": "hunyuan_v1_dense", "rope_scaling": section}
    assert_same(from_hf(config), "ntk", head_dim=8, factor=1000.0)
    refused(LLAMA | {"rope_scaling": section, "max_position_embeddings": 8}, "unknown key 'alpha'")


def test_bias_of_distance_beside_other_positions_is_not_t5():
    for model_type in ("mpnet", "udop", "longt5"):
        config = dict(model_type=model_type, num_heads=4, relative_attention_num_buckets=8)
        refused(config, "is not offered", layer_type="encoder", rngs=nnx.Rngs(0))


# Layers that differ


def test_gemma4_full_layers_are_wider():
    sections = {
        "full_attention": {
            "rope_type": "proportional",
            "partial_rotary_factor": 0.25,
            "rope_theta": 1e6,
        },
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    }
    config = dict(model_type="gemma4_text", head_dim=256, rope_parameters=sections)
    kinds = ["sliding_attention", "full_attention"]
    as_written = {"layer_types": kinds, "per_layer_config": {"01": {"head_dim": 512}}}
    for own in ({}, {"global_head_dim": 512}, as_written):
        full = from_hf(config | own, layer_type="full_attention")
        assert_same(full, "p_rope", head_dim=512, base=1e6, fraction=0.25)
        assert_same(from_hf(config | own, layer_type="sliding_attention"), "rope", head_dim=256)
    assert from_hf(config | as_written, layer=1).head_dim == 512
    own = as_written | {"per_layer_config": {"01": {"rope_theta": 1e5}}}
    refused(config | own, "rope_theta in per_layer_config is not read", layer=1)


def test_olmo3_extends_its_full_layers_only():
    section = {
        "rope_type": "yarn",
        "factor": 8.0,
        "original_max_position_embeddings": 8192,
        "attention_factor": 1.2,
    }
    config = dict(model_type="olmo3", head_dim=128, rope_theta=5e5, rope_scaling=section)
    config |= {"layer_types": ["sliding_attention"] * 3 + ["full_attention"]}
    full = dict(factor=8.0, train_length=8192, attention_factor=1.2)
    for arguments in ({"layer_type": "full_attention"}, {"layer": 3}):
        assert_same(from_hf(config, **arguments), "yarn", head_dim=128, base=5e5, **full)
    for arguments in ({"layer_type": "sliding_attention"}, {"layer": 0}):
        assert_same(from_hf(config, **arguments), "rope", head_dim=128, base=5e5)
    refused(config, "layer_type")
    plain = {key: value for key, value in config.items() if key != "rope_scaling"}
    assert_same(from_hf(plain), "rope", head_dim=128, base=5e5)
    sections = {"full_attention": section, "sliding_attention": {"type": "linear", "factor": 2.0}}
    for spelling in ("rope_parameters", "rope_scaling"):
        own = from_hf(plain | {spelling: sections}, layer_type="sliding_attention")
        assert_same(own, "pi", head_dim=128, base=5e5, factor=2.0)


COHERE2 = dict(model_type="cohere2", head_dim=8, rope_theta=5e4, sliding_window=4096)


def test_layers_without_a_window_have_no_positions():
    assert_same(from_hf(COHERE2, layer_type="full_attention"), "nope")
    sliding = from_hf(COHERE2, layer_type="sliding_attention")
    assert_same(sliding, "rope", head_dim=8, base=5e4, layout="interleaved")
    refused(COHERE2, "layer_type")
    refused(COHERE2, "layer=2", layer=2)
    listed = COHERE2 | {"layer_types": ["sliding_attention", "full_attention"]}
    assert_same(from_hf(listed, layer=1), "nope")
    assert_same(from_hf(listed, layer=0), "rope", head_dim=8, base=5e4, layout="interleaved")
    alike = COHERE2 | {"layer_types": ["full_attention"] * 2}
    assert_same(from_hf(alike), "nope")
    refused(listed, "layer=2", layer=2)
    refused(listed, "layer=1", layer=1, layer_type="sliding_attention")
    null = listed | {"sliding_window": None}
    assert_same(from_hf(null, layer=1), "nope")
    refused(null, "sliding_window=null", layer=0)
    smol = dict(model_type="smollm3", head_dim=8, rope_theta=2e6, num_hidden_layers=3)
    short = smol | {"no_rope_layers": [1, 1]}
    refused(short, "no_rope_layers must have one entry for each layer", layer=2)
    refused(listed | {"per_layer_config": [1]}, "per_layer_config=", layer=0)


def test_exaone4_without_windows_turns_everywhere():
    config = dict(model_type="exaone4", head_dim=8, rope_theta=1e6, sliding_window=None)
    assert_same(from_hf(config), "rope", head_dim=8, base=1e6)
    windows = config | {"sliding_window": 4096}
    assert_same(from_hf(windows, layer_type="full_attention"), "nope")


def test_smollm3_turns_in_three_layers_of_four():
    config = dict(model_type="smollm3", head_dim=8, rope_theta=2e6, num_hidden_layers=8)
    listed = config | {"no_rope_layers": [1, 1, 1, 0] * 2, "layer_types": ["full_attention"] * 8}
    for given in (config, config | {"no_rope_layer_interval": 4}, listed):
        assert_same(from_hf(given, layer=6), "rope", head_dim=8, base=2e6)
        assert_same(from_hf(given, layer=7), "nope")
        refused(given, "layer=")
    refused(listed, "layer=", layer_type="full_attention")
    assert_same(from_hf(config | {"no_rope_layers": [1] * 8}), "rope", head_dim=8, base=2e6)


@pytest.mark.parametrize("model_type", ["llama", "qwen2", "mistral"])
def test_an_empty_list_of_layers_takes_no_rotation_away(model_type):
    config = LLAMA | {"model_type": model_type, "num_hidden_layers": 4, "no_rope_layers": []}
    assert_same(from_hf(config), "rope", head_dim=8)
    smol = from_hf(config | {"model_type": "smollm3"}, layer=3)
    assert_same(smol, "nope")


def test_llama4_has_a_temperature_where_nothing_turns():
    config = dict(model_type="llama4_text", head_dim=8, rope_theta=5e5, num_hidden_layers=8)
    warm = config | {"attn_temperature_tuning": 4, "floor_scale": 16, "attn_scale": 0.2}
    for arguments in ({"layer": 3}, {"layer_type": "full_attention"}):
        nope = from_hf(warm, **arguments)
        assert_same(nope, "llama4_temperature", floor_scale=16, attn_scale=0.2)
        assert_same(from_hf(config, **arguments), "llama4_temperature")
        cold = config | {"attn_temperature_tuning": False}
        assert_same(from_hf(cold, **arguments), "nope")
    for arguments in ({"layer": 0}, {"layer_type": "chunked_attention"}):
        rope = from_hf(warm, **arguments)
        assert_same(rope, "rope", head_dim=8, base=5e5, layout="interleaved")


def test_layers_with_bases_of_their_own():
    bases = [1e4, 0, 5e5, 1e4]
    config = dict(model_type="granite_swa", head_dim=8, layer_rope_theta=bases)
    config |= {"rope_parameters": {"rope_theta": 1e4, "rope_type": "default"}}
    assert_same(from_hf(config, layer=2), "rope", head_dim=8, base=5e5)
    assert_same(from_hf(config, layer=1), "nope")
    refused(config | {"num_hidden_layers": 4}, "layer=")
    muse = config | {"model_type": "muse_spark_text"}
    assert_same(from_hf(muse, layer=1), "nope")
    assert_same(from_hf(muse, layer=0), "rope", head_dim=8)
    refused(muse, "layer_rope_theta=500000.0 contradicts rope_theta=10000.0", layer=2)


def test_molmo2_scales_some_layers():
    config = dict(model_type="molmo2_text", head_dim=8, num_hidden_layers=2, rope_theta=1e6)
    config |= {"rope_scaling": {"rope_type": "linear", "factor": 2.0}, "rope_scaling_layers": [0]}
    assert_same(from_hf(config, layer=0), "pi", head_dim=8, base=1e6, factor=2.0)
    assert_same(from_hf(config, layer=1), "rope", head_dim=8, base=1e6)
    refused(config, "layer=")


def test_modernbert_names_its_bases():
    config = dict(model_type="modernbert", head_dim=8)
    config |= dict(global_rope_theta=160000.0, local_rope_theta=10000.0)
    assert_same(from_hf(config, layer_type="full_attention"), "rope", head_dim=8, base=160000.0)
    assert_same(from_hf(config, layer_type="sliding_attention"), "rope", head_dim=8)


def test_beam_scales_the_queries_of_layers_without_positions():
    sections = {"sliding_attention": {"rope_theta": 1e4}, "full_attention": None}
    config = dict(model_type="beam", head_dim=8, rope_parameters=sections)
    assert_same(from_hf(config, layer_type="sliding_attention"), "rope", head_dim=8)
    assert_same(from_hf(config, layer_type="full_attention"), "beam_scale")
    for flat in ({"rope_theta": 1e4}, {"rope_parameters": {"rope_theta": 1e4}}):
        flat = dict(model_type="beam", head_dim=8, num_hidden_layers=12, **flat)
        assert_same(from_hf(flat, layer=5), "beam_scale")
        assert_same(from_hf(flat, layer=6), "rope", head_dim=8)
    # A section of its own is read as it stands.
    turning = config | {"rope_parameters": sections | {"full_attention": {"rope_theta": 1e6}}}
    assert_same(from_hf(turning, layer_type="full_attention"), "rope", head_dim=8, base=1e6)


def test_published_keys_beside_the_sections():
    sections = {
        "hybrid": {"rope_theta": 5e6, "partial_rotary_factor": 0.5},
        "hybrid_sliding": {"rope_theta": 1e4, "partial_rotary_factor": 0.5},
        "rope_type": "default",
    }
    zaya = dict(model_type="zaya", head_dim=8, rope_parameters=sections)
    hybrid = from_hf(zaya, layer_type="hybrid")
    assert_same(hybrid, "rope", head_dim=8, rotary_dim=4, base=5e6)


def test_layers_without_attention():
    kinds = ["linear_attention", "linear_attention", "full_attention"]
    config = LLAMA | {"model_type": "qwen3_next", "layer_types": kinds}
    refused(config, "layer=0", layer=0)
    assert_same(from_hf(config, layer=2), "rope", head_dim=8, rotary_dim=2)


# Temperatures on every layer


def test_ministral_scales_queries_from_the_start_of_each_step():
    section = {
        "rope_type": "yarn",
        "rope_theta": 1e6,
        "factor": 16.0,
        "original_max_position_embeddings": 4,
        "llama_4_scaling_beta": 0.1,
        "max_position_embeddings": 4,
    }
    config = dict(model_type="ministral3", head_dim=8, rope_parameters=section)
    encoding = from_hf(config)
    assert_same(encoding.inner, "yarn", head_dim=8, base=1e6, factor=16.0, train_length=4)
    ones = np.ones((1, 12, 1, 8), np.float32)
    tokens = encoding.tokens(np.arange(12)[None])
    sides = [posenc_jax.Side(None, 1, 1, is_query) for is_query in (True, False)]
    query, key = (np.asarray(encoding.rotate(ones, tokens, side)) for side in sides)
    steps = 1 + 0.1 * np.log(1 + np.arange(12) // 4)
    np.testing.assert_allclose(query / key, np.broadcast_to(steps[None, :, None, None], key.shape))
    latent = config | DEEPSEEK | {"model_type": "mistral4", "head_dim": 40}
    refused(latent, "llama_4_scaling_beta=0.1 .* multiplies whole queries")


def test_a_scale_of_queries_that_the_code_of_a_model_does_not_read_is_refused():
    section = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0}
    section |= {"original_max_position_embeddings": 64, "llama_4_scaling_beta": 0.1}
    config = dict(head_dim=8, num_hidden_layers=2, rope_parameters=section)
    for model_type in ("llama", "mistral", "qwen3", "deepseek_v3", "llama4_text"):
        own = config | {"model_type": model_type, "qk_rope_head_dim": 8, "no_rope_layers": [1, 1]}
        for layout in (None, "half"):
            message = f"llama_4_scaling_beta=0.1 .* code of '{model_type}' .* ministral3, mistral4"
            refused(own, message, layout=layout)
        plain = own | {"rope_parameters": section | {"llama_4_scaling_beta": 0.0}}
        assert isinstance(from_hf(plain), posenc_jax.encodings.rotary.rope.RoPE)
    scaled = from_hf(config | {"model_type": "ministral3"})
    for vouched in (config, config | {"model_type": "zebra9"}):
        assert nnx.split(from_hf(vouched, layout="half"))[0] == nnx.split(scaled)[0]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "smollm3", "no_rope_layers": [[1], 1, 0, 1]}, "no_rope_layers="),
        ({"model_type": "jamba", "attn_layer_period": "8"}, "attn_layer_period='8' must be"),
        ({"model_type": "jamba", "attn_layer_period": 0}, "attn_layer_period=0 must be"),
        ({"model_type": "jamba", "attn_layer_offset": "1"}, "attn_layer_offset="),
        ({"model_type": "recurrent_gemma", "block_types": []}, "block_types="),
        ({"model_type": "kimi_linear", "linear_attn_config": [1]}, r"linear_attn_config=\[1\]"),
        ({"model_type": "lfm2", "full_attn_idxs": 2}, "full_attn_idxs=2"),
        ({"model_type": "llama", "per_layer_config": {"a": {}}}, "per_layer_config="),
        ({"model_type": "t5"}, "relative_attention_num_buckets"),
    ],
)
def test_a_value_of_another_form_is_named(config, message):
    sizes = {"num_hidden_layers": 4, "num_attention_heads": 4, "hidden_size": 32}
    sizes |= {"rope_theta": 1e4} if config["model_type"] != "t5" else {}
    own = {"layer_type": "decoder"} if config["model_type"] == "t5" else {}
    with pytest.raises(ValueError, match=message):
        from_hf(sizes | config, **own)
        layers_from_hf(sizes | config)
