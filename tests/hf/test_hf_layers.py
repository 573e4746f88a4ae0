"""Reads all layers of published models: kinds, windows, layers without positions or attention."""

import common
import numpy as np
import pytest
from flax import nnx

from posenc_jax import from_hf, layers_from_hf, make, sinks_from_hf
from posenc_jax.encodings.position_maps.dual_chunk import DualChunk
from posenc_jax.hf.config import read
from posenc_jax.hf.pattern import same

# What the published config.json files say about layers and positions.
KIMI_LINEAR = dict(model_type="kimi_linear", num_hidden_layers=27, num_attention_heads=32)
KIMI_LINEAR |= dict(hidden_size=2304, head_dim=72, qk_nope_head_dim=128, qk_rope_head_dim=64)
FULL_LAYERS = [4, 8, 12, 16, 20, 24, 27]
KDA = dict(full_attn_layers=FULL_LAYERS, kda_layers=[n for n in range(1, 27) if n % 4])
KIMI_LINEAR |= dict(rope_theta=1e4, mla_use_nope=True, linear_attn_config=KDA)
GEMMA3_4B = dict(model_type="gemma3_text", num_hidden_layers=34, num_attention_heads=8)
GEMMA3_4B |= dict(hidden_size=2560, head_dim=256, rope_theta=1e6, rope_local_base_freq=1e4)
GEMMA3_4B |= dict(sliding_window=1024, sliding_window_pattern=6)
GEMMA3_4B |= dict(rope_scaling={"rope_type": "linear", "factor": 8.0})
QWEN25_1M = dict(model_type="qwen2", num_hidden_layers=28, num_attention_heads=28)
QWEN25_1M |= dict(hidden_size=3584, rope_theta=1e7, max_position_embeddings=1010000)
QWEN25_1M |= dict(sliding_window=32768, use_sliding_window=False, max_window_layers=28)
DUAL_CHUNKS = dict(chunk_size=262144, local_size=8192, original_max_position_embeddings=262144)
QWEN25_1M |= dict(dual_chunk_attention_config=DUAL_CHUNKS)


# Layers with full attention, of 13, where a config lists no kinds; parity/test_model_types.py asks
# transformers for the same.
FULL_BY_DEFAULT = {
    (1, 3, 5, 7, 9, 11): "gemma2 gpt_oss vaultgemma",
    (3, 7, 11): """
        afmoe cohere2 cohere2_moe exaone4 exaone_moe llama4_text olmo3 olmo_hybrid
        qwen3_5_moe_text qwen3_5_text qwen3_next
        """,
    (4, 9): "gemma3n_text kolibri1",
    (5, 11): "gemma3_text",
    (5, 11, 12): "beam gemma4_text gemma4_unified_text",
    (0, 3, 6, 9, 12): "modernbert modernbert-decoder",
    (4, 12): "jamba",
    (4, 8, 12): "kimi_linear",
}


def kinds(config):
    return read(config, {})["layer_types"]


@pytest.mark.parametrize(
    ("model_type", "full"),
    [(m, full) for full, text in FULL_BY_DEFAULT.items() for m in text.split()],
)
def test_kinds_of_layers_by_default(model_type, full):
    listed = read(dict(model_type=model_type, num_hidden_layers=13, sliding_window=8), {})[
        "layer_types"
    ]
    assert tuple(n for n, kind in enumerate(listed) if kind == "full_attention") == full


# Models whose class reads how often a layer has full attention; no other reads any of these keys.
INTERVALS = {
    "full_attention_interval": "qwen3_5_moe_text qwen3_5_text qwen3_next",
    "global_attn_every_n_layers": "afmoe modernbert modernbert-decoder",
    "sliding_window_pattern": "cohere2 cohere2_moe exaone4 exaone_moe gemma3_text",
}


@pytest.mark.parametrize("key", INTERVALS)
def test_an_interval_is_read_where_the_class_reads_it(key):
    def reads(name):
        config = dict(model_type=name, num_hidden_layers=13, sliding_window=8)
        return kinds(config) != kinds(config | {key: 7})

    names = " ".join(FULL_BY_DEFAULT.values()).split()
    assert {*filter(reads, names)} == {*INTERVALS[key].split()}


def said(layers, count):
    """Returns the class of each layer's encoding, "-" where it does not attend, and its window."""
    pairs = [layers.at(number) for number in range(count)]
    return [("-" if e is None else type(e).__name__, window) for e, window in pairs]


def test_layers_without_attention_or_positions():
    layers = layers_from_hf(KIMI_LINEAR)
    attending = [n for n, (name, _) in enumerate(said(layers, 27)) if name == "Encoding"]
    assert attending == [3, 7, 11, 15, 19, 23, 26] and len(layers.distinct) == 1
    common.refuses("place 0", lambda: layers.check(27))
    # Other models say it in other words.
    hybrid = dict(num_hidden_layers=8, num_attention_heads=4, hidden_size=64, rope_theta=1e4)
    for model_type, keys, expected in (
        ("qwen3_next", {}, [3, 7]),
        ("qwen3_next", {"full_attention_interval": 2}, [1, 3, 5, 7]),
        ("bamba", {"attn_layer_indices": [2, 5]}, [2, 5]),
        ("kimi_linear", {"mla_use_nope": True}, [4]),
        ("lfm2", {"full_attn_idxs": [2, 5]}, [2, 5]),
        ("jamba", {"attn_layer_period": 4, "attn_layer_offset": 1}, [1, 5]),
        ("mllama_text_model", {"cross_attention_layers": [0, 2, 3]}, [1, 4, 5, 6, 7]),
        ("nemotron_h", {"hybrid_override_pattern": "M-M*EM*-"}, [3, 6]),
        ("zamba", {}, [2, 7]),
        ("zamba2", {"hybrid_layer_ids": [3, 6], "use_mem_rope": True}, [3, 6]),
        ("minimax_text_01", {"attn_type_list": [0, 1] * 4}, [1, 3, 5, 7]),
    ):
        names = said(layers_from_hf(hybrid | keys, model_type=model_type), 8)
        assert [n for n, (name, _) in enumerate(names) if name != "-"] == expected


SMOLLM3 = dict(model_type="smollm3", num_hidden_layers=4, head_dim=8, rope_theta=1e6)
SMOLLM3 |= dict(no_rope_layer_interval=2, sliding_window=4)


@pytest.mark.parametrize(
    ("keys", "windows"),
    [
        ({"use_sliding_window": False}, [None] * 4),
        ({"use_sliding_window": True}, [None, 4, None, 4]),
        # Listed windows count whatever the switch says, as in the masks of transformers.
        ({"use_sliding_window": False, "layer_types": ["sliding_attention"] * 4}, [4] * 4),
        ({"use_sliding_window": True, "layer_types": ["full_attention"] * 4}, [None] * 4),
    ],
)
def test_the_switch_of_smollm3_is_for_layers_that_are_not_listed(keys, windows):
    layers = layers_from_hf(SMOLLM3 | keys)
    assert [layers.at(number)[1] for number in range(4)] == windows


def test_dual_chunks():
    (encoding,) = layers_from_hf(QWEN25_1M).distinct
    sizes = dict(chunk_size=262144, local_window=8192, original_length=262144)
    assert same(encoding, make("dual_chunk", head_dim=128, base=1e7, train_length=262144, **sizes))
    empty = from_hf(QWEN25_1M | {"dual_chunk_attention_config": {}})
    assert same(empty, make("rope", head_dim=128, base=1e7))


@pytest.mark.parametrize("model_type", ["qwen2_moe", "qwen3", "qwen3_moe", "qwen3_next"])
def test_other_models_with_dual_chunks(model_type):
    assert isinstance(from_hf(QWEN25_1M | {"model_type": model_type}, layer=3), DualChunk)


def test_biases_are_those_of_every_layer():
    bloom = dict(model_type="bloom", n_layer=30, n_head=16)
    assert said(layers_from_hf(bloom), 30) == [("ALiBi", None)] * 30
    t5 = dict(model_type="t5", num_heads=2, d_model=8, relative_attention_num_buckets=8)
    t5 |= dict(num_layers=6)
    layers = layers_from_hf(t5, layer_type="decoder", rngs=nnx.Rngs(0))
    assert said(layers, 6) == [("T5", None)] * 6 and len(layers.distinct) == 1
    umt5 = dict(t5, model_type="umt5", num_layers=3, num_decoder_layers=2)
    for stack, count in (("encoder", 3), ("decoder", 2)):
        layers = layers_from_hf(umt5, layer_type=stack, rngs=nnx.Rngs(0))
        assert len(layers.distinct) == count == len(layers.pattern)
    with pytest.raises(ValueError, match="relative_attention_num_buckets"):
        layers_from_hf(t5, layer_type="decoder", relative_attention_num_buckets=None)


def test_layers_have_a_length_and_an_end():
    layers = layers_from_hf(GEMMA3_4B)
    assert len(layers) == 34 and [window for _, window in layers].count(None) == 5
    assert len(layers.pattern) == 34 and len(list(layers)) == 34
    common.refuses("number=34", lambda: layers.at(34))


# What classes of transformers make of configs that say less, or say it in other words


def windows(config):
    return [window for _, window in layers_from_hf(config)]


KINDS = dict(full="full_attention", sliding="sliding_attention")
SIZES = dict(hidden_size=64, num_attention_heads=4, head_dim=16, rope_theta=1e4)


def kinds_of(text):
    return dict(layer_types=[KINDS[name] for name in text.split()])


def test_neomme_alternates_short_and_long_windows():
    neomme = SIZES | kinds_of("sliding sliding sliding full") | {"model_type": "neomme"}
    assert windows(neomme) == [(256, 256), (1024, 1024), (256, 256), None]
    far, near = (from_hf(neomme, layer_type=kind) for kind in ("full_attention", KINDS["sliding"]))
    assert (far.rotary_dim, near.rotary_dim) == (4, 16)


def test_t5gemma2_has_two_stacks():
    text = SIZES | kinds_of("sliding full") | dict(sliding_window=8, rope_local_base_freq=1e3)
    text |= dict(rope_scaling={"rope_type": "linear", "factor": 8.0}, head_dim=256)
    encoder = {"model_type": "t5gemma2_encoder", "text_config": text}
    encoder["text_config"]["model_type"] = "t5gemma2_text"
    decoder = text | {"model_type": "t5gemma2_decoder"}
    whole = {"model_type": "t5gemma2", "encoder": encoder, "decoder": decoder}
    common.refuses("encoder.*decoder", lambda: from_hf(whole))
    common.refuses("encoder.*decoder", lambda: layers_from_hf(whole))
    assert windows(encoder) == [(3, 4), None] and windows(decoder) == [8, None]
    scaled = from_hf(decoder, layer_type="full_attention")
    assert same(scaled, make("pi", head_dim=256, base=1e4, factor=8.0))


def test_the_window_of_mimo_has_the_query_too():
    mimo = dict(model_type="mimo_v2_flash", num_hidden_layers=6, swa_rope_theta=1e4, rope_theta=5e6)
    mimo |= dict(sliding_window=128, sliding_window_size=128)
    assert windows(mimo) == [None, 129, 129, 129, 129, None]


def test_the_window_of_a_modernbert_is_half_of_its_attention():
    bert = dict(model_type="modernbert", hidden_size=64, num_attention_heads=4, num_hidden_layers=3)
    assert windows(bert) == [None, (64, 64), (64, 64)]
    ettin = bert | dict(model_type="modernbert-decoder", local_attention=32)
    assert windows(ettin) == [None, 16, 16]


def test_falcon_with_alibi_has_plain_rope_in_its_object():
    falcon = dict(model_type="falcon", num_attention_heads=4, hidden_size=64, alibi=True)
    section = {"rope_type": "default", "rope_theta": 1e4}
    assert same(from_hf(falcon | {"rope_parameters": section}), from_hf(falcon))
    yarn = section | {"rope_type": "yarn", "factor": 2.0}
    common.refuses("rope_parameters", lambda: from_hf(falcon | {"rope_parameters": yarn}))


def test_step_3_5_lists_bases_and_parts_of_heads():
    step = SIZES | kinds_of("full sliding sliding full") | dict(model_type="step3p5")
    step |= dict(num_hidden_layers=3, sliding_window=8, rope_theta=[5e6, 1e4, 1e4, 1e4])
    step |= dict(partial_rotary_factors=[0.5, 1.0, 1.0, 1.0], yarn_only_types=["full_attention"])
    step |= dict(rope_scaling={"rope_type": "linear", "factor": 2.0}, use_rope_layers=[])
    (far, _), *others = layers_from_hf(step)
    assert same(far, make("pi", head_dim=16, rotary_dim=8, base=5e6, factor=2.0))
    assert len(others) == 2
    assert all(same(e, make("rope", head_dim=16)) and window == 8 for e, window in others)


def test_ling_3_attends_in_the_last_layer_of_a_group():
    ling = dict(model_type="bailing_hybrid", num_hidden_layers=8, layer_group_size=4)
    ling |= dict(qk_rope_head_dim=64, rope_theta=6e6)
    assert [n for n, (encoding, _) in enumerate(layers_from_hf(ling)) if encoding] == [3, 7]


def test_attn_factor_is_not_attention_factor():
    yarn = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=512)
    common.refuses(
        r"attention_factor = attn_factor \*",
        lambda: from_hf(yarn | {"attn_factor": 1.0}, head_dim=8),
    )


@pytest.mark.parametrize("model_type", ["albert", "electra"])
def test_embeddings_with_a_width_of_their_own(model_type):
    sizes = dict(hidden_size=256, max_position_embeddings=8)
    assert from_hf(sizes, model_type=model_type, rngs=nnx.Rngs(0)).table.shape == (8, 128)


LATENT = dict(hidden_size=256, num_attention_heads=4, num_hidden_layers=8, rope_theta=1e4)
LATENT |= dict(qk_rope_head_dim=16, qk_nope_head_dim=32)


def attending(config):
    return [n for n, (encoding, _) in enumerate(layers_from_hf(config)) if encoding is not None]


def test_attention_beside_other_mixers():
    gigachat = LATENT | dict(model_type="gigachat3_5", full_attention_layers=[0, 5])
    assert attending(gigachat) == [0, 5]
    bailing = LATENT | dict(model_type="bailing_moe_v3", use_mla_nope=True)
    assert attending(bailing) == [3, 7]
    assert not from_hf(bailing, layer=3).overrides("rotate")
    assert from_hf(bailing | dict(use_mla_nope=False), layer=3).layout == "interleaved"
    kimi = LATENT | dict(model_type="kimi_k3", linear_attn_config=dict(full_attn_layers=[4, 8]))
    assert attending(kimi) == [3, 7]
    for config in (gigachat, bailing, kimi):
        common.refuses("linear_attention", lambda config=config: from_hf(config, layer=1))


def test_iquest():
    config = dict(model_type="iquest_q1", hidden_size=64, num_attention_heads=4, sliding_window=8)
    config |= dict(num_hidden_layers=8, num_hybrid_layers_block=1, no_rope_layers=[1, 3])
    layers = list(layers_from_hf(config))
    assert [window for _, window in layers] == [None, None, 8, 8, 8, None, None, None]
    still = [n for n, (encoding, _) in enumerate(layers) if not encoding.overrides("rotate")]
    assert still == [1, 3]
    assert (layers[2][0].base, layers[5][0].base, layers[5][0].rotary_dim) == (1e4, 1e6, 32)
    scaled = dict(rope_type="linear", factor=2.0)
    for number in (2, 5):
        assert from_hf(config | dict(rope_scaling=scaled), layer=number).frequencies.factor == 2
    common.refuses("kv head", lambda: sinks_from_hf(config))
    assert sinks_from_hf(config | dict(enable_sink_attention=False)) == [None] * 8
    common.refuses("does not give 8", lambda: layers_from_hf(config, num_hybrid_layers_block=2))
    plain = layers_from_hf(config | dict(use_sliding_window=False))
    assert {window for _, window in plain} == {None}


def test_xllm_rotates_the_first_pairs_of_whole_heads():
    config = dict(model_type="xllm", head_dim=64, rope_theta=1e4, rope_scaling=None)
    rope = from_hf(config | dict(rope_head_dim=16))
    inv_freq, _ = rope.frequencies(64, rope.base, 1)
    np.testing.assert_allclose(inv_freq[:8], 1e4 ** -(np.arange(8) / 8), rtol=1e-6)
    assert rope.rotary_dim == 64 and not inv_freq[8:].any()
    yarn = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=64)
    scaled = config | dict(rope_scaling=yarn)
    assert from_hf(scaled | dict(rope_head_dim=64)).frequencies.factor == 4
    common.refuses("rope_head_dim=16", lambda: from_hf(scaled | dict(rope_head_dim=16)))
