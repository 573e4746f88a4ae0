"""Reads all layers of published models: kinds, windows, layers without positions or attention."""

import common
import pytest
from flax import nnx

from posenc_jax import from_hf, layers_from_hf, make
from posenc_jax.encodings.position_maps.dual_chunk import DualChunk
from posenc_jax.hf.config import read
from posenc_jax.hf.pattern import same

# What the published config.json files say about layers and positions.
KIMI_LINEAR = dict(model_type="kimi_linear", num_hidden_layers=27, num_attention_heads=32)
KIMI_LINEAR |= dict(hidden_size=2304, head_dim=72, qk_nope_head_dim=128, qk_rope_head_dim=64)
FULL_LAYERS = [4, 8, 12, 16, 20, 24, 27]
KDA = dict(full_attn_layers=FULL_LAYERS, kda_layers=[n for n in range(1, 27) if n % 4])
KIMI_LINEAR |= dict(rope_theta=1e4, mla_use_nope=True, linear_attn_config=KDA)
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


def test_layers_without_positions():
    layers = layers_from_hf(KIMI_LINEAR)
    assert attending(KIMI_LINEAR) == [3, 7, 11, 15, 19, 23, 26] and len(layers.distinct) == 1
    assert not layers.distinct[0].overrides("rotate")
    common.refuses("place 0", lambda: layers.check(27))


def attending(config):
    return [n for n, (encoding, _) in enumerate(layers_from_hf(config)) if encoding is not None]


HYBRID = dict(num_hidden_layers=8, num_attention_heads=4, hidden_size=64, rope_theta=1e4)
HYBRID |= dict(qk_rope_head_dim=16, qk_nope_head_dim=32)


@pytest.mark.parametrize(
    ("model_type", "keys", "expected"),
    [
        ("qwen3_next", {}, [3, 7]),
        ("qwen3_next", {"full_attention_interval": 2}, [1, 3, 5, 7]),
        ("bamba", {"attn_layer_indices": [2, 5]}, [2, 5]),
        ("kimi_linear", {"mla_use_nope": True}, [4]),
        ("kimi_k3", {"linear_attn_config": {"full_attn_layers": [4, 8]}}, [3, 7]),
        ("lfm2", {"full_attn_idxs": [2, 5]}, [2, 5]),
        ("jamba", {"attn_layer_period": 4, "attn_layer_offset": 1}, [1, 5]),
        ("mllama_text_model", {"cross_attention_layers": [0, 2, 3]}, [1, 4, 5, 6, 7]),
        ("nemotron_h", {"hybrid_override_pattern": "M-M*EM*-"}, [3, 6]),
        ("zamba", {}, [2, 7]),
        ("zamba2", {"hybrid_layer_ids": [3, 6], "use_mem_rope": True}, [3, 6]),
        ("minimax_text_01", {"attn_type_list": [0, 1] * 4}, [1, 3, 5, 7]),
        ("bailing_hybrid", {"layer_group_size": 4}, [3, 7]),
        ("bailing_moe_v3", {}, [3, 7]),
        ("gigachat3_5", {"full_attention_layers": [0, 5]}, [0, 5]),
    ],
)
def test_layers_without_attention(model_type, keys, expected):
    config = HYBRID | keys | {"model_type": model_type}
    assert attending(config) == expected
    other = min({*range(8)} - {*expected})
    common.refuses("layer_type|no attention", lambda: from_hf(config, layer=other))


def test_dual_chunks():
    (encoding,) = layers_from_hf(QWEN25_1M).distinct
    sizes = dict(chunk_size=262144, local_window=8192, original_length=262144)
    assert same(encoding, make("dual_chunk", head_dim=128, base=1e7, train_length=262144, **sizes))
    for model_type in ("qwen2_moe", "qwen3", "qwen3_moe", "qwen3_next"):
        assert isinstance(from_hf(QWEN25_1M | {"model_type": model_type}, layer=3), DualChunk)
    empty = from_hf(QWEN25_1M | {"dual_chunk_attention_config": {}})
    assert same(empty, make("rope", head_dim=128, base=1e7))


def test_biases_are_those_of_every_layer():
    bloom = layers_from_hf(dict(model_type="bloom", n_layer=30, n_head=16))
    assert len(list(bloom)) == 30 and bloom.distinct[0].overrides("score")
    common.refuses("number=30", lambda: bloom.at(30))
    t5 = dict(num_heads=2, d_model=8, num_layers=3, num_decoder_layers=2)
    t5 |= dict(relative_attention_num_buckets=8)
    for model_type, stack, count, tables in (
        ("t5", "decoder", 2, 1),
        ("umt5", "encoder", 3, 3),
        ("umt5", "decoder", 2, 2),
    ):
        told = dict(layer_type=stack, rngs=nnx.Rngs(0))
        layers = layers_from_hf(t5 | {"model_type": model_type}, **told)
        assert len(layers.distinct) == tables and len(layers) == count


# What classes of transformers make of configs that say less, or say it in other words


def windows(config):
    return [window for _, window in layers_from_hf(config)]


KINDS = dict(full="full_attention", sliding="sliding_attention")
SIZES = dict(hidden_size=64, num_attention_heads=4, head_dim=16, rope_theta=1e4)


def kinds_of(text):
    return dict(layer_types=[KINDS[name] for name in text.split()])


MODERNBERT = dict(hidden_size=64, num_attention_heads=4, num_hidden_layers=3)
MIMO = dict(num_hidden_layers=6, swa_rope_theta=1e4, rope_theta=5e6, sliding_window=128)
IQUEST = dict(hidden_size=64, num_attention_heads=4, sliding_window=8, num_hidden_layers=8)
IQUEST |= dict(num_hybrid_layers_block=1, no_rope_layers=[1, 3], model_type="iquest_q1")
NEOMME = SIZES | kinds_of("sliding sliding sliding full") | {"model_type": "neomme"}


@pytest.mark.parametrize(
    ("model_type", "config", "expected"),
    [
        ("neomme", NEOMME, [(256, 256), (1024, 1024), (256, 256), None]),
        # The window of MiMo has the query too, and that of ModernBERT is half of its attention.
        ("mimo_v2_flash", MIMO | {"sliding_window_size": 128}, [None, *[129] * 4, None]),
        ("modernbert", MODERNBERT, [None, (64, 64), (64, 64)]),
        ("modernbert-decoder", MODERNBERT | dict(local_attention=32), [None, 16, 16]),
        ("iquest_q1", IQUEST, [None, None, 8, 8, 8, None, None, None]),
        ("iquest_q1", IQUEST | dict(use_sliding_window=False), [None] * 8),
    ],
)
def test_windows(model_type, config, expected):
    assert windows(config | {"model_type": model_type}) == expected


def test_the_parts_that_rotate_in_layers_of_two_kinds():
    far, near = (from_hf(NEOMME, layer_type=kind) for kind in KINDS.values())
    assert (far.rotary_dim, near.rotary_dim) == (4, 16)
    layers = [encoding for encoding, _ in layers_from_hf(IQUEST)]
    assert [n for n, encoding in enumerate(layers) if not encoding.overrides("rotate")] == [1, 3]
    assert (layers[2].base, layers[5].base, layers[5].rotary_dim) == (1e4, 1e6, 32)
    scaled = IQUEST | dict(rope_scaling=dict(rope_type="linear", factor=2.0))
    assert [from_hf(scaled, layer=number).frequencies.factor for number in (2, 5)] == [2, 2]
    common.refuses("does not give 8", lambda: layers_from_hf(IQUEST, num_hybrid_layers_block=2))


def test_t5gemma2_has_two_stacks():
    text = SIZES | kinds_of("sliding full") | dict(sliding_window=8, rope_local_base_freq=1e3)
    text |= dict(rope_scaling={"rope_type": "linear", "factor": 8.0}, head_dim=256)
    of_text = text | {"model_type": "t5gemma2_text"}
    encoder = {"model_type": "t5gemma2_encoder", "text_config": of_text}
    decoder = text | {"model_type": "t5gemma2_decoder"}
    whole = {"model_type": "t5gemma2", "encoder": encoder, "decoder": decoder}
    for function in (from_hf, layers_from_hf):
        common.refuses("encoder.*decoder", lambda function=function: function(whole))
    assert windows(encoder) == [(3, 4), None] and windows(decoder) == [8, None]
    scaled = from_hf(decoder, layer_type="full_attention")
    assert same(scaled, make("pi", head_dim=256, base=1e4, factor=8.0))


def test_step_3_5_lists_bases_and_parts_of_heads():
    step = SIZES | kinds_of("full sliding sliding full") | dict(model_type="step3p5")
    step |= dict(num_hidden_layers=3, sliding_window=8, rope_theta=[5e6, 1e4, 1e4, 1e4])
    step |= dict(partial_rotary_factors=[0.5, 1.0, 1.0, 1.0], yarn_only_types=["full_attention"])
    step |= dict(rope_scaling={"rope_type": "linear", "factor": 2.0}, use_rope_layers=[])
    (far, _), *others = layers_from_hf(step)
    assert same(far, make("pi", head_dim=16, rotary_dim=8, base=5e6, factor=2.0))
    assert len(others) == 2
    assert all(same(e, make("rope", head_dim=16)) and window == 8 for e, window in others)


@pytest.mark.parametrize("model_type", ["albert", "electra"])
def test_embeddings_with_a_width_of_their_own(model_type):
    sizes = dict(hidden_size=256, max_position_embeddings=8)
    assert from_hf(sizes, model_type=model_type, rngs=nnx.Rngs(0)).table.shape == (8, 128)
