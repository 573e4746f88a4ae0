"""Bad input raises an error that names the argument, the value and what is allowed."""

import functools
import re

import chex
import common
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import schemes
from flax import nnx

import posenc_jax
from posenc_jax import HeadShard, Tokens, registry
from posenc_jax.encodings.position_maps.self_extend import SelfExtend
from posenc_jax.encodings.rotary.frequencies import Frequencies, PositionInterpolation
from posenc_jax.encodings.rotary.frequencies.base import geometric
from posenc_jax.encodings.rotary.layouts import to_half, to_interleaved
from posenc_jax.encodings.rotary.rope import RoPE
from posenc_jax.encodings.wrappers.logit_scale import Llama4Temperature
from posenc_jax.encodings.wrappers.on_axes import OnAxes
from posenc_jax.positions import Text, packed, qwen2_vl, segments_of, text, videorope

B, T, H, C = 2, 6, common.HEADS, common.HEAD_DIM
SIZES = dict(num_heads=H, head_dim=C, model_dim=common.WIDTH, train_length=32, num_layers=8)


def raises(error, *parts):
    """Expects an error whose message has these parts in this order."""
    return pytest.raises(error, match="(?s)" + ".*".join(re.escape(part) for part in parts))


def inputs(num_heads=H, keys=T, num_kv_heads=None, channels=C):
    q = jnp.asarray(common.normal(0, B, T, num_heads, channels))
    k, v = (
        jnp.asarray(common.normal(seed, B, keys, num_kv_heads or num_heads, channels))
        for seed in (1, 2)
    )
    return q, k, v


# make


def test_unknown_scheme_names_the_nearest():
    with raises(ValueError, "unknown encoding 'alibbi', did you mean 'alibi'?", "valid: alibi"):
        posenc_jax.make("alibbi", num_heads=4)
    with raises(ValueError, "unknown encoding 'zzz'; valid: ", "alibi, ", "yarn"):
        posenc_jax.make("zzz")


def test_unknown_keyword_names_the_nearest():
    with raises(TypeError, "encoding 'yarn' has no keyword 'beta_fats'", "'beta_fast'", "truncate"):
        common.build("yarn", beta_fats=3)
    with raises(
        TypeError, "encoding 'rope' has no keyword 'dim'", "valid: axes, base, ", "head_dim"
    ):
        posenc_jax.make("rope", dim=64)
    with raises(TypeError, "encoding 'nope' has no keyword 'slope'; it has none of its own"):
        common.build("nope", slope=1)


@pytest.mark.parametrize("name", common.SCHEMES)
def test_an_unknown_keyword_is_never_swallowed(name):
    with raises(TypeError, f"encoding {name!r} has no keyword 'no_such_keyword'"):
        common.build(name, no_such_keyword=1)


@pytest.mark.parametrize(
    ("name", "given", "missing"),
    [
        ("rope", {}, "head_dim="),
        ("yarn", {"head_dim": 8}, "train_length="),
        ("alibi", {"head_dim": 8}, "num_heads="),
        ("learned", {"model_dim": 8}, "train_length=, rngs="),
        ("transformer_xl", {"num_heads": 4, "head_dim": 8, "model_dim": 32}, "rngs="),
        ("transformer_xl", dict(num_heads=4, head_dim=8, model_dim=32, num_layers=2), "rngs="),
    ],
)
def test_missing_argument(name, given, missing):
    with raises(ValueError, f"make({name!r}, ...) needs {missing}"):
        posenc_jax.make(name, **given)


@pytest.mark.parametrize("value", [0, -4, 8.0, "8"])
def test_dimensions_are_positive_whole_numbers(value):
    with raises(ValueError, f"head_dim={value!r} must be at least 1, and a whole number"):
        posenc_jax.make("rope", head_dim=value)


@pytest.mark.parametrize(
    ("name", "bad", "message"),
    [
        ("rope", {"head_dim": 7}, "within 2..head_dim=7, not 7"),
        ("rope", {"rotary_dim": 3}, "not 3: channels rotate in pairs"),
        ("rope", {"rotary_dim": 10}, "within 2..head_dim=8, not 10"),
        ("rope", {"rotary_dim": 0}, "not 0"),
        ("t5", {"bidirectional": "false"}, "bidirectional='false' must be True or False"),
        ("yarn", {"truncate": None}, "truncate=None must be True or False"),
        ("pi", {"factor": True}, "factor=True must be a number"),
        ("seqpe", {"num_axes": [2]}, "num_axes=[2] must be a number"),
        ("seqpe", {"scalar_scale": 1j}, "scalar_scale=1j must be a number"),
        ("sinusoidal_2d", {"num_axes": {}}, "num_axes={} must be a number"),
        ("seqpe", {"num_pivots": None}, "num_pivots=None must be a number"),
        ("rope", {"rotary_dim": "8"}, "rotary_dim='8' must be a number"),
        ("rope", {"layout": ["half"]}, "layout=['half'] must be a name"),
        ("rope", {"axes": 1}, "axes=1 must be a tuple"),
        ("swin_v2", {"grid": 8}, "grid=8 must be a tuple"),
        ("shaw", {"values": np.ones(2)}, "values=array([1., 1.]) must be True or False"),
        ("alibi", {"slope_scale": "2"}, "slope_scale='2' must be a number"),
        ("rope", {"layout": "neox"}, "layout='neox' must be 'half' or 'interleaved'"),
        ("rope", {"base": 1.0}, "base=1.0 must be a number above 1"),
        ("rope", {"base": float("nan")}, "base=nan must be a number above 1"),
        ("rope", {"axes": (0, 1)}, "axes names 2 channel pairs, but rotary_dim=8 has 4"),
        ("pi", {"factor": 0.5}, "factor=0.5 must be a finite number >= 1"),
        ("ntk", {"factor": float("inf")}, "factor=inf must be a finite number >= 1"),
        ("dynamic_ntk", {"factor": None}, "factor=None must be a number"),
        ("yarn", {"factor": 0}, "factor=0 must be a finite number >= 1"),
        ("yarn", {"ramp": "linear"}, "ramp='linear' must be 'index' or 'turns'"),
        ("yarn", {"beta_fast": 0.5}, "beta_fast=0.5 must be larger than beta_slow=1.0"),
        ("yarn", {"beta_slow": 0.0}, "beta_slow=0.0, and both positive"),
        ("yarn", {"attention_factor": 0.0}, "attention_factor=0.0 must be a positive number"),
        ("yarn", {"attention_factor": float("nan")}, "attention_factor=nan must be a positive"),
        ("yarn", {"mscale": 0.7}, "mscale=0.7 and mscale_all_dim=None must both be positive"),
        ("yarn", {"mscale": -8.0, "mscale_all_dim": 1.0}, "mscale=-8.0 and mscale_all_dim=1.0 "),
        ("ntk_critical", {"factor": 0.5}, "factor=0.5 must be a finite number >= 1"),
        ("ntk_critical", {"train_length": 6}, "train_length=6 must be at least 7"),
        ("ntk_by_parts", {"factor": 0.5}, "factor=0.5 must be a finite number >= 1"),
        ("ntk_by_parts", {"alpha": 40.0}, "beta=32.0 must be larger than alpha=40.0"),
        ("llama3", {"factor": 0.5}, "factor=0.5 must be a finite number >= 1"),
        (
            "llama3",
            {"high_freq_factor": 0.5},
            "high_freq_factor=0.5 must be larger than low_freq_factor=1.0",
        ),
        ("dynamic_yarn", {"ramp": "linear"}, "ramp='linear' must be 'index' or 'turns'"),
        ("dynamic_yarn", {"beta_slow": 0.0}, "beta_slow=0.0, and both positive"),
        ("dynamic_yarn", {"attention_factor": 0.0}, "attention_factor=0.0 must be a positive"),
        ("longrope", {"factor": 0.5}, "factor=0.5 must be a finite number >= 1"),
        ("longrope", {"train_length": 1}, "train_length=1 must be at least 2"),
        ("longrope", {"attention_factor": 0.0}, "attention_factor=0.0 must be a positive number"),
        ("longrope", {"attention_factor": float("nan")}, "attention_factor=nan must be a positive"),
        ("longrope", {"short_attention_factor": 0.0}, "short_attention_factor=0.0 must be a"),
        ("longrope2", {"attention_factor": 0.0}, "attention_factor=0.0 must be a positive number"),
        ("longrope", {"start_tokens": -1}, "start_tokens=-1 must be at least 0, and a whole"),
        ("longrope", {"long_factor": (1.0, 2.0)}, "long_factor=(1.0, 2.0) must be 4 finite"),
        ("longrope", {"long_factor": 0.0}, "long_factor=0.0 must be 4 finite numbers above 0"),
        ("longrope", {"short_factor": (1, 1, 1, float("inf"))}, "short_factor=(1, 1, 1, inf) must"),
        ("longrope2", {"factor": 0.5}, "factor=0.5 must be a finite number >= 1"),
        ("longrope2", {"base": 1.0}, "base=1.0 must be a number above 1"),
        ("longrope2", {"critical_pair": 4}, "critical_pair=4 must be within 0..3"),
        ("longrope2", {"critical_pair": -1}, "critical_pair=-1 must be within 0..3"),
        (
            "longrope2",
            {"critical_pair": 1, "tail_factors": (4.0, 5.0)},
            "tail_factors=(4.0, 5.0) must be 3 finite numbers",
        ),
        (
            "longrope2",
            {"critical_pair": 2, "tail_factors": (5.0, 4.5)},
            "tail_factors=(5.0, 4.5) must not decrease",
        ),
        ("longrope2", {"tail_factors": 3.0}, "tail_factors=3.0 must not decrease, and be at least"),
        ("clipped_rope", {"clipped_pairs": 0}, "clipped_pairs=0 must be at least 1, and a whole"),
        ("clipped_rope", {"clipped_pairs": 1.5}, "clipped_pairs=1.5 must be a whole number"),
        ("clipped_rope", {"taper": "soft"}, "taper='soft' must be 'cosine' or 'hard'"),
        ("hope", {"cut_cycles": -1.0}, "cut_cycles=-1.0 must be a number of turns, 0 or more"),
        ("hope", {"cut_cycles": float("nan")}, "cut_cycles=nan must be a number of turns"),
        ("p_rope", {"fraction": 0.0}, "fraction=0.0 must be in (0, 1]"),
        ("p_rope", {"fraction": 1.5}, "fraction=1.5 must be in (0, 1]"),
        ("p_rope", {"factor": 0.0}, "factor=0.0 must be a finite number >= 1"),
        ("xpos", {"scale_base": 0.0}, "scale_base=0.0 must be a positive number"),
        ("xpos", {"gamma": -0.1}, "gamma=-0.1 must be a positive number"),
        ("xpos", {"gamma": float("inf")}, "gamma=inf must be a positive number, finite"),
        ("fope", {"padding": "zero"}, "padding='zero' must be 'zero_frequency' or 'ones'"),
        ("fope", {"rotary_dim": 2}, "FoPE needs at least 4 rotary channels, not 2"),
        ("fope", {"train_length": 6}, "train_length=6 leaves no frequency"),
        ("fope", {"gain": -1.0}, "gain=-1.0 must be a number, 0 or more"),
        ("pope", {"phase_init": "normal"}, "phase_init='normal' must be 'zero' or 'uniform'"),
        ("pope", {"base": 0.5}, "base=0.5 must be a number above 1"),
        ("mhrope", {"axis_heads": (-1, 2, 2)}, "axis_heads=(-1, 2, 2) must be whole numbers of h"),
        ("soft_cap", {"over": None}, "over=None must be an encoding, the name of one, or a map"),
        ("ssmax", {"over": 3, "num_layers": 2}, "over=3 must be an encoding, the name of one"),
        ("logn", {"over": ["rope"]}, "over=['rope'] must be an encoding, the name of one, or a"),
        ("prope", {"time_base": 1.0}, "time_base=1.0 must be a number above 1"),
        ("rerope", {"window": 0}, "window=0 must be at least 1, and a whole number"),
        ("leaky_rerope", {"window": 4.0}, "window=4.0 must be a whole number, without"),
        ("t5", {"max_distance": 99.5}, "max_distance=99.5 must be a whole number"),
        ("cope", {"num_positions": float("nan")}, "num_positions=nan must be a whole number"),
        ("leaky_rerope", {"factor": 0.5}, "factor=0.5 must be a finite number, 1 or more"),
        ("self_extend", {"group_size": 0}, "group_size=0 must be at least 1, and a whole number"),
        ("self_extend", {"window": -8}, "window=-8 must be at least 1, and a whole number"),
        ("dual_chunk", {"local_window": 24}, "local_window=24 must be less than chunk_size=24"),
        ("dual_chunk", {"chunk_size": 4}, "local_window=4 must be less than chunk_size=4"),
        (
            "dual_chunk",
            {"chunk_size": 20.5},
            "chunk_size=20.5 must be a whole number",
        ),
        ("dual_chunk", {"local_window": 2.5}, "local_window=2.5 must be a whole number"),
        ("alibi", {"slope_scale": 0.0}, "slope_scale=0.0 must be a positive number"),
        ("alibi", {"slope_scale": float("inf")}, "slope_scale=inf must be a positive number, fin"),
        ("soft_cap", {"cap": float("inf")}, "cap=inf must be a positive number, finite; without a"),
        ("beam_scale", {"exponent": float("inf")}, "exponent=inf must be a positive number, fin"),
        ("golden_gate", {"fastest": float("inf")}, "fastest=inf, a finite number, and zero_share"),
        ("t5", {"num_buckets": 7}, "num_buckets=7 must be a positive multiple of 2"),
        ("t5", {"num_buckets": 0}, "num_buckets=0 must be a positive multiple of 2"),
        (
            "t5",
            {"num_buckets": 6, "bidirectional": True},
            "num_buckets=6 must be a positive multiple of 4",
        ),
        ("t5", {"table_scale": float("nan")}, "table_scale=nan must be a positive number, finite"),
        ("t5", {"max_distance": 16}, "max_distance=16 must exceed the 16 distances"),
        ("fire", {"init_length": 0.0}, "init_length=0.0 must be a positive number"),
        ("fire", {"init_length": float("inf")}, "init_length=inf must be a positive number"),
        ("seqpe", {"temperature": float("inf")}, "temperature=inf must be a positive number, fin"),
        ("fire", {"hidden": 0}, "hidden=0 must be at least 1"),
        ("sandwich", {"channels": 7}, "channels=7 must be a positive even number"),
        ("sandwich", {"channels": 0}, "channels=0 must be a positive even number"),
        ("sandwich", {"base": 0}, "base=0 must be a number above 1"),
        ("shaw", {"max_distance": 0}, "max_distance=0 must be at least 1"),
        ("deberta", {"max_distance": 0}, "max_distance=0 must be at least 1"),
        ("deberta", {"num_buckets": 7}, "num_buckets=7 must be a positive even number"),
        ("deberta", {"num_buckets": 0}, "num_buckets=0 must be a positive even number"),
        (
            "deberta",
            {"num_buckets": 8, "max_distance": 5},
            "max_distance=5 must exceed 5, or the num_buckets=8 have nothing to group",
        ),
        ("deberta", {"p2c_row": "code"}, "p2c_row='code' must be one of ('released', 'paper')"),
        ("dape", {"bias": "fire"}, "bias='fire' must be one of ('kerple_log', 'alibi')"),
        ("dape", {"hidden": 0}, "hidden=0 must be at least 1"),
        ("cope", {"num_positions": 1}, "num_positions=1 must be at least 2"),
        ("learned", {"out_of_range": "wrap"}, "out_of_range='wrap' must be one of ('error'"),
        ("learned_2d", {"out_of_range": "wrap"}, "out_of_range='wrap' must be one of ('error'"),
        ("learned_2d", {"grid": (4, 0)}, "grid=(4, 0) must name one or more positive numbers"),
        ("sinusoidal", {"model_dim": 33}, "model_dim=33 must be even"),
        ("sinusoidal", {"base": -5}, "base=-5 must be a number above 1"),
        ("sinusoidal", {"base": 0}, "base=0 must be a number above 1"),
        ("sinusoidal", {"base": 0.01}, "base=0.01 must be a number above 1"),
        ("sinusoidal_2d", {"base": 0}, "base=0 must be a number above 1"),
        ("sinusoidal_2d", {"num_axes": 3}, "model_dim=32 must be a multiple of 2 * num_axes"),
        ("axial_rope", {"num_axes": 3}, "num_axes=3 must divide the 4 channel pairs; set rotary"),
        ("sinusoidal", {"layout": "pairs"}, "layout='pairs' must be 'half' or 'interleaved'"),
        ("transformer_xl", {"model_dim": 33}, "model_dim=33 must be even"),
        ("transformer_xl", {"base": 0.0}, "base=0.0 must be a number above 1"),
        ("path", {"num_kv_heads": 3}, "num_kv_heads=3 must divide num_heads=4"),
        ("path", {"rank": 0}, "rank=0 must be at least 1"),
        ("path", {"width": 0}, "width=0 must be at least 1"),
        ("selective_rope", {"model_dim": 33}, "num_heads=4 must divide model_dim=33"),
        ("selective_rope", {"rank": 0}, "rank=0 must be at least 1"),
        ("selective_rope", {"width": 0}, "width=0 must be at least 1"),
        ("selective_rope", {"temperature": float("nan")}, "temperature=nan must be a positive"),
        ("selective_rope", {"temperature": 0.0}, "temperature=0.0 must be a positive number"),
        ("llama4_temperature", {"attn_scale": float("nan")}, "attn_scale=nan must be a number, 0"),
        ("llama4_temperature", {"floor_scale": float("nan")}, "floor_scale=nan must be a whole"),
        ("llama4_temperature", {"attn_scale": -0.1}, "attn_scale=-0.1 must be a number, 0 or more"),
        ("ministral_scale", {"attn_scale": float("inf")}, "attn_scale=inf must be a number, 0 or"),
    ],
)
def test_bad_value_of_a_keyword(name, bad, message):
    with raises(ValueError, message):
        common.build(name, **bad)


@pytest.mark.parametrize(
    ("name", "key"), [("soft_cap", "cap"), ("alibi", "slope_scale"), ("t5", "table_scale")]
)
def test_a_number_that_is_an_array_is_refused(name, key):
    """The encoding would keep it among its parameters, and train it."""
    with raises(ValueError, f"{key}=Array(2., dtype=float32) must be a number"):
        common.build(name, **{key: jnp.float32(2)})
    assert common.build("rope", base=jnp.float32(500)).base == 500


COUNTS = [
    ("cope", "num_positions"),
    ("deberta", "max_distance"),
    ("dual_chunk", "chunk_size"),
    ("dual_chunk", "original_length"),
    ("grape_ap", "width"),
    ("inkling", "extent"),
    ("inkling", "log_floor"),
    ("learned", "train_length"),
    ("llama4_temperature", "floor_scale"),
    ("longrope", "start_tokens"),
    ("rerope", "window"),
    ("self_extend", "group_size"),
    ("self_extend", "window"),
    ("shaw", "max_distance"),
    ("t5", "max_distance"),
]


@pytest.mark.parametrize("value", [2**31, 2**40])
@pytest.mark.parametrize(("name", "key"), COUNTS)
def test_a_count_beyond_int32_is_refused_by_its_name(name, key, value):
    """Attention counts tokens in int32, where JAX would raise an OverflowError without a name."""
    with raises(ValueError, f"{key}={value} must be at least", "a whole number below 2**31"):
        jax.eval_shape(lambda: common.build(name, trained=False, **{key: value}))


@pytest.mark.parametrize("name", registry.REGISTRY)
def test_a_number_with_a_decimal_point_is_no_count(name):
    parameters = registry.keywords(registry.lookup(name))
    for key in registry.own_keywords(name):
        if parameters[key].annotation in (int, int | None):
            with raises(ValueError, f"{key}=4.0 must be a whole number, without a decimal point"):
                posenc_jax.make(name, **SIZES, **{key: 4.0})


@pytest.mark.parametrize("name", ["golden_gate", "i_mrope", "mhrope", "videorope"])
def test_a_rotary_width_beyond_the_head_is_refused_before_its_pairs_are_listed(name):
    with raises(ValueError, "even and within 2..head_dim=8, not 1099511627776: channels rotate in"):
        common.build(name, rotary_dim=2**40)


@pytest.mark.parametrize("key", ["local_base", "global_base", "global_factor"])
def test_a_pattern_names_its_own_keyword(key):
    with raises(ValueError, f"{key}=0.5 must be a"):
        posenc_jax.make("dual_base", head_dim=8, **{key: 0.5})


def test_ntk_needs_two_pairs():
    encoding = common.build("ntk", rotary_dim=2)
    with raises(ValueError, "NTK scaling needs at least 4 rotary channels, not 2"):
        encoding.tokens(text(3), length=3)


def test_clipped_pairs_must_exist():
    encoding = common.build("clipped_rope", clipped_pairs=5)
    with raises(ValueError, "clipped_pairs=5 must be at most 4, the pairs of 8 rotary channels"):
        encoding.tokens(text(3), length=3)


def test_some_pair_must_turn():
    with raises(ValueError, "fraction=0.1 rotates none of 4 pairs", "more than 1 / 4", "'nope'"):
        common.build("p_rope", fraction=0.1).tokens(text(3), length=3)
    common.build("p_rope", fraction=0.25).tokens(text(3), length=3)
    with raises(ValueError, "zero_share=0.99 leaves none of 4 pairs to rotate", "at most 0.75"):
        common.build("golden_gate", zero_share=0.99).tokens(jnp.zeros((1, 3, 2)), length=3)
    common.build("golden_gate", zero_share=0.75).tokens(jnp.zeros((1, 3, 2)), length=3)


def test_a_layout_is_converted_along_channels():
    for convert in (to_half, to_interleaved):
        with raises(ValueError, "rotary_dim=6 must be even and within 2..4", "axis 1 of (8, 4)"):
            convert(np.zeros((8, 4)), rotary_dim=6, axis=1)
        with raises(ValueError, "rotary_dim=7 must be even"):
            convert(np.zeros((8, 7)))


# Positions


def test_position_axes_must_fit():
    plain, spatial = common.build("rope"), common.build("rope", axes=(0, 1, 2, 0))
    two_axes = jnp.zeros((1, T, 2), jnp.int32)
    with raises(ValueError, "positions have shape (1, 6, 2)", "one axis", "axes="):
        plain.tokens(two_axes)
    message = "axes=(0, 1, 2, 0) needs positions [B, T, A] with A > 2, or [B, T] for text"
    with raises(ValueError, message, "not (1, 6, 2)"):
        spatial.tokens(two_axes)


@pytest.mark.parametrize(
    "name", ["xpos", "fope", "pope", "rerope", "self_extend", "dual_chunk", "transformer_xl"]
)
def test_rotations_of_one_position_axis(name):
    with raises(ValueError, "positions have shape (1, 6, 2)", "one position axis", "[B, T]"):
        common.build(name).tokens(jnp.zeros((1, T, 2), jnp.int32))


@pytest.mark.parametrize("name", ["fope", "pope"])
def test_another_number_of_kv_heads(name):
    encoding = common.build(name)
    tokens = encoding.tokens(text(T))
    message = "the encoding was made for num_kv_heads=4, but attention has 2 kv heads"
    with raises(ValueError, message, "pass num_kv_heads=2 to make"):
        posenc_jax.attend(encoding, *inputs(num_kv_heads=2), tokens)


@pytest.mark.parametrize(
    "name", ["alibi", "t5", "kerple_log", "kerple_power", "fire", "shaw", "deberta", "dape"]
)
def test_distances_need_one_position_axis(name):
    encoding = common.build(name)
    tokens = encoding.tokens(jnp.zeros((1, T, 2), jnp.int32))
    with raises(ValueError, "a distance needs one position axis", "(1, 6, 2)"):
        posenc_jax.attend(encoding, *inputs(), tokens)


def test_sandwich_needs_one_position_axis():
    with raises(ValueError, "positions have shape (1, 6, 2)", "one position axis", "[B, T]"):
        common.build("sandwich").tokens(jnp.zeros((1, T, 2), jnp.int32))


# attend


@pytest.mark.parametrize(
    "name", ["alibi", "t5", "kerple_log", "kerple_power", "sandwich", "fire", "deberta", "dape"]
)
def test_another_number_of_heads(name):
    encoding = common.build(name)
    tokens = encoding.tokens(text(T))
    message = "the encoding was made for num_heads=4, but attention has 2 query heads"
    with raises(ValueError, message):
        posenc_jax.attend(encoding, *inputs(num_heads=2), tokens)


def test_mixed_heads_must_all_be_there():
    encoding = common.build("dape")
    tokens = encoding.tokens(text(T))
    message = "DAPE mixes heads and needs all num_heads=4 of them, but was given 2"
    with raises(ValueError, message, "do not shard attention over heads"):
        posenc_jax.attend(HeadShard(encoding, jnp.array([2, 3]), H), *inputs(num_heads=2), tokens)


@pytest.mark.parametrize("heads", [[3], [[2, 3]], [2, 4], [-1, 0], [2, 2]])
def test_a_shard_numbers_each_of_its_heads(heads):
    """One would stand for all heads or for two, and one that is too large for the last."""
    encoding, (q, k, v) = common.build("alibi"), inputs(num_heads=2)
    shard, tokens = HeadShard(encoding, jnp.array(heads), H), encoding.tokens(text(T))
    message = f"heads={shard.heads} of HeadShard must be an array of 2 numbers of query heads"
    with raises(ValueError, message):
        posenc_jax.attend(shard, q, k, v, tokens)
    with raises(ValueError, message):
        posenc_jax.rotate_keys(shard, k, v, tokens, num_heads=2)


@pytest.mark.parametrize(
    ("heads", "num_kv_heads", "num_heads"),
    [([1, 2], 1, 4), ([0, 3, 1, 2], 2, 4), ([0, 1, 2], 1, 4), ([0, 1], 1, 5)],
)
def test_a_shard_has_whole_groups_of_heads(heads, num_kv_heads, num_heads):
    """Keys would turn by the parameters of a kv head that some of their queries do not read."""
    encoding, tokens = posenc_jax.Encoding(), posenc_jax.Encoding().tokens(text(T))
    q, k, v = inputs(num_heads=len(heads), num_kv_heads=num_kv_heads)
    shard = HeadShard(encoding, np.array(heads), num_heads)
    message = f"heads={shard.heads} of HeadShard, of num_heads={num_heads}, cut a group: "
    with raises(ValueError, message, f"read one of the {num_kv_heads} kv heads given"):
        posenc_jax.attend(shard, q, k, v, tokens)
    with raises(ValueError, message):
        posenc_jax.rotate_keys(shard, k, v, tokens, num_heads=len(heads))
    for whole in ([0, 1], [3, 2]):
        sides = (x[:, :, :n] for x, n in zip((q, k, v), (2, 1, 1), strict=True))
        posenc_jax.attend(HeadShard(encoding, np.array(whole), 4), *sides, tokens)
    repeated = [jnp.repeat(x, len(heads) // num_kv_heads, axis=2) for x in (k, v)]
    posenc_jax.attend(shard, q, *repeated, tokens)


@pytest.mark.parametrize("name", ["shaw", "cope", "deberta", "transformer_xl", "path"])
def test_another_head_dim(name):
    encoding = common.build(name)
    tokens = encoding.tokens(text(T)).observed(encoding, jnp.ones((B, T, common.WIDTH)))
    with raises(ValueError, "heads have 6 channels, but the encoding was made for head_dim=8"):
        posenc_jax.attend(encoding, *inputs(channels=6), tokens)


@pytest.mark.parametrize("name", ["fox", "path"])
def test_another_number_of_heads_than_gates(name):
    encoding = common.build(name)
    x_BTD = jnp.ones((B, T, common.WIDTH))
    tokens = encoding.tokens(text(T)).observed(encoding, x_BTD)
    with raises(ValueError, "the encoding was made for num_heads=4, but attention has 2 query"):
        posenc_jax.attend(encoding, *inputs(num_heads=2), tokens)


def test_heads_that_do_not_share_angles():
    encoding = common.build("selective_rope")
    x_BTD = jnp.ones((B, T, common.WIDTH))
    tokens = encoding.tokens(text(T)).observed(encoding, x_BTD)
    message = "made for num_kv_heads=4, but attention has 2 kv heads"
    with raises(ValueError, message, "pass num_kv_heads=2 to make"):
        posenc_jax.attend(encoding, *inputs(num_kv_heads=2), tokens)


def test_shapes_must_fit():
    encoding = common.build("rope")
    tokens = encoding.tokens(text(T))
    q, k, v = inputs()
    wrong = [
        (q, k[..., :4], v),  # channels
        (q, k[:1], v),  # batch
        (q, k, v[:, :3]),  # keys and values
        (q, k[:, :, :3], v[:, :, :3]),  # 4 query heads over 3
        (q[:, :, :2], k, v),
    ]
    for each in wrong:
        with raises(ValueError, "q (2, 6,", "do not fit: q must be [B, T, H, C]"):
            posenc_jax.attend(encoding, *each, tokens)


def test_positions_must_be_of_the_tokens_attended():
    encoding = common.build("rope")
    q, k, v = inputs(keys=T + 2)
    short, long = (encoding.tokens(text(n)) for n in (T, T + 2))
    with raises(ValueError, "k_tokens has positions of shape (1, 6)", "8 tokens", "[2, 8]"):
        posenc_jax.attend(encoding, q, k, v, short)
    with raises(ValueError, "q_tokens has positions of shape (1, 8)", "6 tokens"):
        posenc_jax.attend(encoding, q, k, v, long, long)
    three_rows = encoding.tokens(jnp.tile(text(T), (3, 1)))
    with raises(ValueError, "positions of shape (3, 6)", "batch of 2"):
        posenc_jax.attend(encoding, *inputs(), three_rows)
    heads_first = [x.swapaxes(1, 2) for x in inputs(num_heads=H + 1)]
    with raises(ValueError, f"queries of shape {heads_first[0].shape}, which is [B, T, H, C]"):
        posenc_jax.attend(encoding, *heads_first, short)


@pytest.mark.parametrize("what", ["segment_ids", "index"])
def test_segments_and_order_are_of_one_batch_or_shared(what):
    """More rows than the queries have would make the output as many."""
    encoding, (q, k, v) = common.build("nope"), inputs()
    rows = np.tile(np.arange(T), (3, 1))
    for count, batch in ((2, 1), (3, 1), (3, 2)):
        tokens = encoding.tokens(text(T), **{what: rows[:count]})
        sides = [x[:batch] for x in (q, k, v)]
        message = f"q_tokens has {what} of shape ({count}, 6), but"
        shapes = "[1, 6]" if batch == 1 else f"[{batch}, 6] or [1, 6]"
        with raises(ValueError, message, f"batch of {batch}: give {shapes}"):
            posenc_jax.attend(encoding, *sides, tokens)
        with raises(ValueError, f"tokens has {what} of shape ({count}, 6)"):
            posenc_jax.rotate_keys(encoding, *sides[1:], tokens, num_heads=H)
    for count in (1, 2):
        tokens = encoding.tokens(text(T), **{what: rows[:count]})
        assert posenc_jax.attend(encoding, q, k, v, tokens).shape == q.shape


def test_segments_of_both_sides_or_of_neither():
    encoding = common.build("nope")
    plain = encoding.tokens(text(T))
    packed = encoding.tokens(text(T), jnp.zeros((1, T), jnp.int32))
    with raises(ValueError, "segment_ids must be given for both queries and keys"):
        posenc_jax.attend(encoding, *inputs(), plain, packed)


@pytest.mark.parametrize("name", ["rope", "t5"])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("implementation", ["dense", "blockwise"])
def test_a_query_that_sees_nothing_gives_zeros(name, dtype, implementation):
    """The gradients are no NaN either."""
    encoding = common.build(name)
    q, k, v = (x.astype(dtype) for x in inputs())
    q_segments = jnp.array([[0, 0, 7, 0, 0, 0]])
    q_tokens = encoding.tokens(text(T), q_segments)
    k_tokens = encoding.tokens(text(T), jnp.zeros_like(q_segments))

    @jax.jit
    def attend(q, k, v):
        return posenc_jax.attend(
            encoding, q, k, v, q_tokens, k_tokens, implementation=implementation
        )

    output = attend(q, k, v)
    assert (output[:, 2] == 0).all()
    assert (jnp.abs(output[:, 3:]).max(axis=(0, 2, 3)) > 0.1).all()
    gradients = jax.grad(lambda *qkv: (attend(*qkv) ** 2).sum(), argnums=(0, 1, 2))(q, k, v)
    chex.assert_tree_all_finite(gradients)


def test_what_is_given_in_the_wrong_place():
    encoding, (q, k, v) = common.build("rope"), inputs()
    tokens = encoding.tokens(text(T))
    with raises(ValueError, "q_tokens must be Tokens, not ndarray", "encoding.tokens(positions)"):
        posenc_jax.attend(encoding, q, k, v, text(T))
    with raises(ValueError, "k_tokens must be Tokens, not ndarray"):
        posenc_jax.attend(encoding, q, k, v, tokens, text(T))
    with raises(ValueError, "q_tokens were not prepared for RoPE: make them by "):
        posenc_jax.attend(encoding, q, k, v, Tokens(jnp.asarray(text(T))))
    with raises(ValueError, "encoding must be an Encoding, as posenc_jax.make gives it, not str"):
        posenc_jax.attend("rope", q, k, v, tokens)


@pytest.mark.parametrize("cut", [np.s_[0, 0], np.s_[0], np.s_[None]])
def test_arrays_must_have_four_axes(cut):
    tokens = common.build("nope").tokens(text(T))
    each = [x[cut] for x in inputs()]
    with raises(ValueError, "queries, keys and values must be [B, T, H, C], not q "):
        posenc_jax.attend(common.build("nope"), *each, tokens)


@pytest.mark.parametrize("name", ["q", "k", "v"])
def test_whole_numbers_are_not_attended(name):
    encoding = common.build("nope")
    arrays = dict(zip("qkv", inputs(), strict=True))
    arrays[name] = arrays[name].astype(jnp.int32)
    with raises(ValueError, f"{name} must be floating-point numbers, not int32"):
        posenc_jax.attend(encoding, *arrays.values(), encoding.tokens(text(T)))


@pytest.mark.parametrize("window", [2.5, True, 0, -1, "4", np.float32(2), 2**40])
def test_a_window_is_a_number_of_keys(window):
    encoding = common.build("nope")
    with raises(
        ValueError, f"window={window!r} must be a whole number of keys, 1 or more and below 2**31"
    ):
        posenc_jax.attend(encoding, *inputs(), encoding.tokens(text(T)), window=window)


def test_a_traced_window_and_a_scale_are_one_number():
    encoding, tokens = common.build("nope"), common.build("nope").tokens(text(T))
    attend = functools.partial(posenc_jax.attend, encoding, *inputs(), tokens)
    for window in (jnp.arange(1, T + 1), jnp.array([3]), jnp.asarray(0), jnp.asarray(2.0)):
        with raises(ValueError, f"window={window!r} must be a whole number of keys, 1 or more"):
            attend(window=window)
    with raises(ValueError, "must be a whole number of keys"):
        jax.eval_shape(lambda window: attend(window=window), jnp.arange(1, T + 1))
    for scale in (jnp.ones(H), np.ones(T), [0.5], "0.5", True, 1j, jnp.asarray(1j)):
        with raises(ValueError, f"scale={scale!r} must be one real number, a float or an array []"):
            attend(scale=scale)
        with raises(ValueError, "must be one real number"):
            posenc_jax.logits(encoding, *inputs()[:2], tokens, scale=scale)


def test_a_window_and_a_scale_may_be_numbers_of_any_library():
    encoding, tokens = common.build("nope"), common.build("nope").tokens(text(T))
    attend = functools.partial(posenc_jax.attend, encoding, *inputs(), tokens)
    expected = attend(window=3, scale=2)
    for number in (np.int64, np.uint8, jnp.int32, jnp.uint8):
        np.testing.assert_allclose(attend(window=number(3), scale=2.0), expected, rtol=1e-4)
    for number in (np.float32, np.float64, np.asarray, jnp.asarray, jnp.float32, nnx.Param):
        np.testing.assert_allclose(attend(window=3, scale=number(2)), expected, rtol=1e-4)
    traced = jax.jit(lambda window, scale: attend(window=window, scale=scale))
    np.testing.assert_allclose(traced(3, 2.0), expected, rtol=1e-4)


def test_keys_are_turned_ahead_once_and_by_their_own_tokens():
    encoding, (_, k, v) = common.build("rope"), inputs(num_kv_heads=2)
    tokens = encoding.tokens(text(T))
    turn = functools.partial(posenc_jax.rotate_keys, encoding, num_heads=H)
    *turned, turned_tokens = turn(k, v, tokens)
    with raises(ValueError, "tokens say that k and v are rotated already", "before rotation"):
        turn(*turned, turned_tokens)
    for count in (1, T + 2):
        with raises(ValueError, f"tokens has positions of shape (1, {count})", "have 6 tokens"):
            turn(k, v, encoding.tokens(text(count)))
    with raises(ValueError, "tokens must be Tokens, not ndarray"):
        turn(k, v, text(T))
    with raises(ValueError, "keys and values must be [B, T, H, C], not k (6, 2, 8), v"):
        turn(k[0], v[0], tokens)
    with raises(ValueError, "v must be floating-point numbers, not int32"):
        turn(k, v.astype(jnp.int32), tokens)
    with raises(ValueError, "k (2, 6, 2, 8), v (2, 3, 2, 8) do not fit: both must be [B, S, K, C]"):
        turn(k, v[:, :3], tokens)
    for bad in (1, 3):
        with raises(ValueError, f"num_heads={bad} must be", "a multiple of the 2 kv heads"):
            turn(k, v, tokens, num_heads=bad)
    for bad in (0, 4.0, True, "4"):
        with raises(ValueError, f"num_heads={bad!r} must be at least 1, and a whole number"):
            turn(k, v, tokens, num_heads=bad)


@pytest.mark.parametrize("name", [n for n in common.SCHEMES if common.outline(n).per_layer])
def test_the_parameters_of_all_layers_are_no_layers(name):
    encoding = jax.eval_shape(lambda: common.build(name, num_layers=3, trained=False))
    message = f"this {type(encoding).__name__} holds the parameters of 3 layers"
    with raises(ValueError, message, "encoding.of_layer(i)"):
        posenc_jax.attend(encoding, *inputs(), common.build("nope").tokens(text(T)))


def of_two_layers(name):
    return common.build(name, num_layers=2, trained=False)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: of_two_layers("fox").of_layer(2), "layer=2 must be within 0..1"),
        (lambda: of_two_layers("fox").of_layer(-1), "layer=-1 must be within 0..1"),
        (lambda: common.build_model("fox").layer_at(9), "number=9 must be within 0..1"),
        (lambda: common.build("ssmax", over=of_two_layers("fox")), "holds those of 2 layers"),
        (
            lambda: (
                of_two_layers("fox")
                .tokens(text(T))
                .observed(of_two_layers("fox"), jnp.zeros((B, T, common.WIDTH)))
            ),
            "this FoX holds the parameters of 2 layers",
        ),
        (lambda: common.build("soft_cap", over={"base": 1e4}), "has no name"),
        (
            lambda: common.build("ssmax", over={"name": "alibi", "num_heads": 4}),
            "has num_heads, which make gives it too",
        ),
        (lambda: posenc_jax.Layers([posenc_jax.Encoding()]).over(0), "num_layers=0 must be at"),
        (lambda: posenc_jax.Chunks(0), "size=0 must be at least 1, and a"),
        (
            lambda: posenc_jax.Chunks(2**31),
            "size=2147483648 must be at least 1, and a whole number below 2**31",
        ),
        (
            lambda: RoPE(head_dim=8, rotary_dim=4.0),
            "must be a whole number, even and within 2..head_dim=8, not 4.0",
        ),
        (
            lambda: Llama4Temperature(over=ROPE, floor_scale=float("inf")),
            "floor_scale=inf must be at least 1",
        ),
        (lambda: text(5.5), "length=5.5 must give whole numbers below 2**31"),
    ],
)
def test_what_is_not_there_or_given_twice(build, message):
    with raises(ValueError, message):
        build()


def test_numbers_of_numpy_are_numbers():
    assert posenc_jax.Chunks(np.int64(4)).size == 4
    for factor in (np.int64(4), np.float32(4)):
        pi = posenc_jax.make("pi", head_dim=8, factor=factor)
        assert pi.frequencies == PositionInterpolation(4.0)
    assert posenc_jax.make("rerope", head_dim=8, window=np.int64(4)).window == 4
    direct = SelfExtend(head_dim=8, window=np.int64(4), group_size=np.int64(2), floor=True)
    assert not any(isinstance(x, np.generic) for x in vars(direct).values())


NUMBERS = [
    (name, key, value)
    for name in common.SCHEMES
    for key, parameter in registry.keywords(registry.lookup(name)).items()
    for value in [schemes.ALL[name].overrides.get(key, parameter.default)]
    if type(value) in (int, float)
]


@pytest.mark.parametrize(("name", "key", "value"), NUMBERS)
def test_a_keyword_may_be_a_number_of_numpy(name, key, value):
    """It gives the encoding that the same number of Python gives."""
    given = np.float32(value) if isinstance(value, float) else np.int64(value)
    usual, own = (
        jax.eval_shape(lambda number=number: common.build(name, **{key: number}, trained=False))
        for number in (given.item(), given)
    )
    assert jax.tree.structure(own) == jax.tree.structure(usual)
    assert not any(isinstance(x, np.generic) for x in vars(own).values())


READS = [n for n in common.SCHEMES if "observe" in common.outline(n).hooks()]


@pytest.mark.parametrize("name", READS)
def test_what_depends_on_the_input_must_read_it(name):
    encoding = common.build(name)
    kind, tokens = type(encoding).__name__, encoding.tokens(text(T))
    with raises(ValueError, f"{kind} reads the layer's input", "x=x_BTD"):
        posenc_jax.attend(encoding, *inputs(), tokens)
    with raises(ValueError, f"{kind} reads the layer's input, and tokens come without it"):
        posenc_jax.rotate_keys(encoding, *inputs()[1:], tokens, num_heads=H)


FAMILIES = "encodings.rotary.", "encodings.position_maps."
TURNS = [name for name in common.SCHEMES if any(f in posenc_jax.REGISTRY[name] for f in FAMILIES)]


@pytest.mark.parametrize("name", TURNS)
def test_rotary_heads_of_another_width(name):
    """Such heads are not turned in part."""

    def attend(encoding, *sides):
        return posenc_jax.attend(encoding, *sides, encoding.tokens(text(T)))

    for channels in (C - 4, C + 4):
        with raises(ValueError, f"{channels} channels", f"head_dim={C}"):
            jax.eval_shape(attend, common.outline(name), *inputs(channels=channels))


def test_no_tokens_are_no_attention():
    encoding = common.build("nope")
    with raises(ValueError, "positions have shape (1, 0)", "at least one token"):
        encoding.tokens(text(0))
    with raises(ValueError, "positions have shape (6,)", "[B, T]", "add a batch axis with [None]"):
        encoding.tokens(text(T)[0])
    q, k, v = inputs()
    tokens = encoding.tokens(text(T))
    with raises(ValueError, "at least one query and one key, not q (2, 0, 4, 8)"):
        posenc_jax.attend(encoding, q[:, :0], k, v, tokens, tokens)


@pytest.mark.parametrize("argument", ["segment_ids", "index"])
def test_numbers_of_tokens_must_fit_the_positions(argument):
    encoding = common.build("nope")
    for bad in (
        np.zeros(T, int),
        np.zeros((1, T + 1), int),
        np.zeros((1, T)),
        np.zeros((3, T), int),
    ):
        with raises(
            ValueError, f"{argument} must be whole numbers of shape [2, 6]", str(bad.shape)
        ):
            encoding.tokens(text(T).repeat(2, axis=0), **{argument: bad})


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "int8", "int64", "uint64"])
def test_numbers_of_tokens_may_be_of_any_type(dtype):
    """The difference of unsigned numbers is never below 0, which would hide no later token."""
    encoding, segment_ids = common.build("rope"), np.array([[0, 0, 1, 1, 1, 1]])
    usual, own = (
        encoding.tokens(text(T), segment_ids.astype(kind), index=text(T).astype(kind))
        for kind in ("int32", dtype)
    )
    for window in (None, 2):
        attend = functools.partial(posenc_jax.attend, encoding, *inputs(), window=window)
        np.testing.assert_array_equal(attend(own), attend(usual))


@pytest.mark.parametrize("argument", ["segment_ids", "index"])
def test_numbers_of_tokens_that_int32_would_change_are_refused(argument):
    """Cut to 32 bits, two documents could be one, and an order another one."""
    large = np.array([[0, 1, 2, 3, 4, 2**32]])
    with raises(ValueError, f"{argument}: 4294967296 does not fit into int32; renumber them"):
        common.build("nope").tokens(text(T), **{argument: large})
    with raises(ValueError, f"{argument} are uint32 under jax.jit"):
        jax.eval_shape(
            lambda numbers: common.build("nope").tokens(text(T), **{argument: numbers}),
            large.astype(np.uint32),
        )


def test_an_order_too_far_apart_for_a_difference_is_refused():
    index = np.array([[-(2**31), 0, 1, 2, 3, 2**31 - 1]])
    with raises(ValueError, "index from -2147483648 to 2147483647 are too far apart"):
        common.build("nope").tokens(text(T), index=index)


@pytest.mark.parametrize("length", [0, -3, True, -3.0, float("nan"), np.float32(0.5), 2**31])
def test_a_length_is_a_number_of_tokens(length):
    with raises(ValueError, f"length={length!r} must be a positive number of tokens"):
        common.build("dynamic_ntk").tokens(text(T), length=length)


@pytest.mark.parametrize(
    "length", ["9", [9], 3 + 1j, np.array([True]), jnp.asarray(-4), jnp.asarray([[3.0], [jnp.nan]])]
)
def test_a_length_of_another_kind_is_refused(length):
    with raises(ValueError, f"length={length!r} must be a positive number of tokens, or an array"):
        common.build("dynamic_ntk").tokens(text(T), length=length)


@pytest.mark.slow
def test_lengths_must_fit_the_tokens():
    encoding, two_rows = common.build("dynamic_ntk"), text(T).repeat(2, axis=0)
    for shape in ((5,), (3, 1), (1, 2, 1)):
        with raises(ValueError, "length=", "that broadcasts against [2, 6]"):
            encoding.tokens(two_rows, length=np.full(shape, 40))
    for shape in ((), (T,), (2, 1), (2, T)):
        encoding.tokens(two_rows, length=np.full(shape, 40))
    shared = encoding.tokens(text(T), length=np.full((2, 1), 40))
    assert posenc_jax.attend(encoding, *inputs(), shared).shape == (B, T, H, C)


ADAPTS = [n for n in common.SCHEMES if common.reads_length(n)]


@pytest.mark.parametrize(
    ("encoding", "kind"),
    [
        ("rope", "str"),
        (None, "NoneType"),
        (posenc_jax.Encoding, "the class Encoding"),
        (posenc_jax.Layers([posenc_jax.Encoding()]), "Layers"),
        (HeadShard(posenc_jax.Encoding(), jnp.arange(2), H), "HeadShard"),
    ],
)
def test_an_attention_fn_is_made_for_one_encoding(encoding, kind):
    message = f"encoding must be an Encoding, as posenc_jax.make gives it, not {kind}; of Layers"
    with raises(ValueError, message, "layers.at(i)[0]"):
        posenc_jax.attention_fn(encoding, text(T))


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("rope", common.build("rope", base=500.0)),
        ("rope", common.build("yarn")),
        ("xpos", common.build("rope")),
        ("sandwich", common.build("rope")),
        ("logn", common.build("yarn")),
        ("fox", common.build("path")),
    ],
)
def test_tokens_made_for_another_encoding_are_refused(name, other):
    """As where layers differ in base and window: one layer would turn by the other's angles."""
    encoding, x_BTD = common.build(name), jnp.ones((B, T, common.WIDTH))
    tokens = other.tokens(text(T)).observed(other, x_BTD)
    message = f"tokens were made for another encoding than this {type(encoding).__name__}"
    with raises(ValueError, message, "make tokens for each, encoding.tokens(positions)"):
        posenc_jax.attend(encoding, *inputs(), tokens)
    with raises(ValueError, message):
        posenc_jax.logits(encoding, *inputs()[:2], tokens)
    with raises(ValueError, message):
        posenc_jax.rotate_keys(encoding, *inputs()[1:], tokens, num_heads=H)
    own = encoding.tokens(text(T)).observed(encoding, x_BTD)
    with raises(ValueError, f"k_{message}"):
        posenc_jax.attend(encoding, *inputs(), own, tokens.rotated())


@pytest.mark.parametrize("name", common.one_of_each_set_of_hooks())
def test_tokens_made_for_an_equal_encoding_are_its_own(name):
    """Also for that of one layer, for another's numbers, and where a program is traced."""
    encoding, equal = common.build(name), common.build(name, seed=1)
    made = jax.jit(lambda encoding: encoding.tokens(text(T)))(encoding)
    tokens = made.observed(encoding, jnp.ones((B, T, common.WIDTH)))
    posenc_jax.attend(equal, *inputs(), tokens)
    if encoding.per_layer:
        stacked = common.build(name, num_layers=2)
        made = stacked.tokens(text(T))
        own = stacked.of_layer(1)
        posenc_jax.attend(own, *inputs(), made, x=jnp.ones((B, T, common.WIDTH)))


@pytest.mark.parametrize("name", ["rope", "randomized"])
def test_a_key_is_a_random_key(name):
    """Under a scheme that draws nothing, a seed would be taken for a key until another draws."""
    encoding = common.build(name)
    for key in (0, nnx.Rngs(0), jnp.zeros(2), "params"):
        kind = type(key).__name__
        with raises(ValueError, f"key is {kind}, but must be a random key", "jax.random.key"):
            encoding.tokens(text(T), key=key)
    for key in (jax.random.key(0), jax.random.PRNGKey(0), nnx.Rngs(0).params()):
        encoding.tokens(text(T), key=key)


ADDS = [n for n in common.SCHEMES if "embed" in common.outline(n).hooks()]


@pytest.mark.parametrize("name", ADDS)
def test_embeddings_are_one_vector_for_each_token(name):
    """Else one token would be copied to the places of all, or one sequence to all rows."""
    encoding = common.build(name)
    tokens = encoding.tokens(text(T))
    two_rows = encoding.tokens(text(T).repeat(2, axis=0))
    for shape in ((B, 1, common.WIDTH), (B, T, 1), (T, common.WIDTH), (B, T, common.WIDTH + 2)):
        with raises(ValueError, f"x has shape {shape}, but", f"pass token embeddings [B, {T}, "):
            encoding.embed(jnp.ones(shape), tokens)
    with raises(ValueError, f"x has shape (1, {T}, {common.WIDTH}), but", "of 2 sequences"):
        encoding.embed(jnp.ones((1, T, common.WIDTH)), two_rows)
    for each in (tokens, two_rows):
        assert encoding.embed(jnp.ones((B, T, common.WIDTH)), each).shape == (B, T, common.WIDTH)


def test_a_one_hot_code_is_no_embedding():
    """Vectors of positions, cast to whole numbers, would be zeros."""
    encoding = common.build("learned")
    with raises(ValueError, "x must be token embeddings, floating-point, not int32"):
        encoding.embed(jnp.ones((B, T, common.WIDTH), jnp.int32), encoding.tokens(text(T)))


def test_options_of_attention_of_another_kind():
    encoding, (q, k, v) = common.build("nope"), inputs()
    attend = functools.partial(posenc_jax.attend, encoding, q, k, v, encoding.tokens(text(T)))
    for causal in (None, "no", 0):
        with raises(ValueError, f"causal={causal!r} must be True or False"):
            attend(causal=causal)
    with raises(ValueError, "causal=", "must be True or False, known while the program is traced"):
        jax.jit(lambda causal: attend(causal=causal))(False)
    with raises(ValueError, "scale=", "must be one real number"):
        attend(scale=jnp.asarray(True))
    with raises(ValueError, "sinks='head' must be an array of numbers", "[B, T, H]", "Transformer"):
        attend(sinks="head")
    with raises(ValueError, "implementation=['dense'] must be one of"):
        attend(implementation=["dense"])
    with raises(ValueError, "q must be an array, such as jnp.asarray gives, not list"):
        posenc_jax.attend(encoding, q.tolist(), k, v, encoding.tokens(text(T)))


def test_implementations():
    encoding = common.build("nope")
    tokens = encoding.tokens(text(T))
    with raises(ValueError, "implementation='flash' must be one of", "blockwise"):
        posenc_jax.attend(encoding, *inputs(), tokens, implementation="flash")
    with raises(ValueError, "implementation='flash' must be one of"):
        common.build_model("nope", implementation="flash")


def test_huge_logits_do_not_overflow():
    encoding = common.build("nope")
    tokens = encoding.tokens(text(T))
    q, k, v = inputs()
    output = posenc_jax.attend(encoding, 1e7 * q, 1e7 * k, v, tokens)
    logits = np.einsum("bthc,bshc->bhts", q, k)
    logits = np.where(np.tri(T, dtype=bool), logits, -np.inf)
    winner = np.take_along_axis(np.swapaxes(v, 1, 2), logits.argmax(-1)[..., None], axis=2)
    np.testing.assert_allclose(output, np.swapaxes(winner, 1, 2), rtol=1e-6)


# Transformer


def test_parameters_for_each_layer_must_be_stacked():
    single = common.build("transformer_xl")
    with raises(ValueError, "TransformerXL has parameters for each layer and is used by 2"):
        common.build_model(single)
    with raises(ValueError, "make(..., num_layers=2)"):
        common.build_model(common.build("transformer_xl", num_layers=3))
    with raises(ValueError, "is used by 1: build it with make(..., num_layers=1)"):
        common.build_model([common.build("transformer_xl", num_layers=2), common.build("nope")])


def test_pattern_must_divide_the_layers():
    rope, nope = common.build("rope"), common.build("nope")
    message = "a pattern of 3 encodings does not repeat evenly over 4 layers"
    with raises(ValueError, message, "Layers(...).over(4) says what each has"):
        common.build_model([rope, rope, nope], num_layers=4)
    with raises(ValueError, "a pattern needs encodings", "got 0 encodings and 0 windows"):
        common.build_model([])
    model = common.build_model(rope)
    with raises(ValueError, "a pattern of 3 encodings does not repeat evenly over 2 layers"):
        model.under([rope, rope, nope])


def test_model_dimensions_must_divide():
    with raises(ValueError, "num_kv_heads=3 must divide num_heads=4"):
        common.build_model("nope", num_kv_heads=3)
    with raises(ValueError, "num_heads=5 must divide model_dim=32, or head_dim be given"):
        common.build_model("nope", num_heads=5)


def test_rngs_are_not_needed_without_parameters():
    for name in ("nope", "rope", "alibi", "sinusoidal"):
        arguments = dict(num_heads=4, head_dim=8, model_dim=32, train_length=32)
        assert not jax.tree.leaves(posenc_jax.make(name, **arguments))
        assert not jax.tree.leaves(posenc_jax.make(name, rngs=nnx.Rngs(0), **arguments))


# A scheme of one's own


class ByPosition(posenc_jax.Encoding):
    def __init__(self, num_heads):
        self.num_heads = num_heads

    def score(self, logits_BHTS, tile):
        return logits_BHTS - tile.distance()


class Misspelt(posenc_jax.Encoding):
    def scores(self, logits_BHTS, tile):
        return logits_BHTS - tile.distance()


class NoEncoding:
    def score(self, logits_BHTS, tile):
        return logits_BHTS


class NoFactor(Frequencies):
    def __call__(self, channels, base, length):
        return geometric(channels, base)


class OnePairLess(Frequencies):
    def __call__(self, channels, base, length):
        return geometric(channels, base)[:-1], 1.0


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (ByPosition, "ByPosition takes num_heads by position, but make passes arguments by name"),
        (Misspelt, "Misspelt overrides no hook, so it would be no positional encoding: is one mis"),
        (NoEncoding, "must build an Encoding, or Layers of them, not NoEncoding: is it a subclass"),
    ],
)
def test_a_scheme_that_make_cannot_build(kind, message, monkeypatch):
    monkeypatch.setitem(posenc_jax.REGISTRY, "own", f"{__name__}:{kind.__name__}")
    with raises(ValueError, message):
        posenc_jax.make("own", num_heads=H)


def test_a_line_of_the_registry_has_a_colon(monkeypatch):
    monkeypatch.setitem(posenc_jax.REGISTRY, "own", "posenc_jax.encodings.bias.alibi.ALiBi")
    with raises(ValueError, "REGISTRY['own']='posenc_jax.encodings.bias.alibi.ALiBi' must be"):
        posenc_jax.make("own")


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (NoFactor, "NoFactor returned ndarray, but must return two things"),
        (OnePairLess, "OnePairLess returned frequencies of shape (3,), but must return two things"),
    ],
)
def test_a_rule_returns_frequencies_and_a_factor(rule, message, monkeypatch):
    monkeypatch.setitem(posenc_jax.REGISTRY, "own", f"{__name__}:{rule.__name__}")
    with raises(ValueError, message, "of 4 pairs, and the attention factor"):
        posenc_jax.make("own", head_dim=C).tokens(text(T))


def own(hook, change):
    """Returns a scheme whose one hook makes ``change`` of its first argument."""
    return type("Own", (posenc_jax.Encoding,), {hook: lambda self, x, *_, **__: change(x)})()


# What these hooks return is checked where tokens are made.
OF_TOKENS = {
    "prepare": (lambda t: t.having(t.positions[0]), "an array of shape (6,), but", "along axis 1"),
    "observe": (lambda x: (x[..., 0].T, ()), "an array of shape (6, 2), but", "along axis 1"),
}


@pytest.mark.parametrize("hook", OF_TOKENS)
def test_what_is_made_of_tokens_can_be_cut(hook):
    change, *message = OF_TOKENS[hook]
    with raises(ValueError, f"Own.{hook} returned", *message):
        encoding = own(hook, change)
        encoding.tokens(text(T)).observed(encoding, jnp.ones((B, T, common.WIDTH)))


def test_prepare_returns_tokens():
    with raises(ValueError, "Own.prepare returned NoneType, but must return the tokens"):
        own("prepare", lambda tokens: None).tokens(text(T))


# What is built of encodings


@pytest.mark.parametrize("given", ["rope", posenc_jax.Encoding, ["rope", "nope"]])
def test_layers_are_of_encodings(given):
    """A name is a sequence of letters, of which each would be a layer."""
    with raises(ValueError, "must be an Encoding, as posenc_jax.make gives it, not"):
        common.build_model("nope").under(given)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"rngs": 0}, "rngs=0 must be random numbers of Flax: pass nnx.Rngs(0)"),
        ({"dtype": "bf16"}, "dtype='bf16' must be a floating-point type, such as 'bfloat16'"),
        *(({f: "no"}, f"{f}='no' must be True or False") for f in ("qkv_bias", "tied", "remat")),
        *(({f: None}, f"{f}=None must be True or False") for f in ("post_norm", "causal", "scan")),
    ],
)
def test_bad_value_of_a_keyword_of_the_model(bad, message):
    sizes = dict(vocab_size=8, model_dim=32, num_layers=1, num_heads=H, rngs=nnx.Rngs(0))
    with raises(ValueError, message):
        posenc_jax.Transformer(posenc_jax.Encoding(), **sizes | bad)


def test_heads_of_a_shard_are_an_array_of_whole_numbers():
    encoding, tokens = common.build("alibi"), common.build("alibi").tokens(text(T))
    for heads in ([0, 1, 2, 3], jnp.arange(4.0), None):
        with raises(ValueError, "of HeadShard must be an array of 4 numbers of query heads"):
            posenc_jax.attend(HeadShard(encoding, heads, H), *inputs(), tokens)
    for num_heads in ("4", jnp.arange(4)):
        with raises(ValueError, f"num_heads={num_heads!r} must be at least 1, and a whole number"):
            posenc_jax.attend(HeadShard(encoding, jnp.arange(4), num_heads), *inputs(), tokens)


@pytest.mark.parametrize("count", [0, -1, "2", 1.5])
def test_a_part_is_a_number_of_tokens(count):
    tokens = common.build("rope").tokens(text(T))
    with raises(ValueError, f"count={count!r} must be at least 1, and a whole number"):
        tokens.part(1, count)
    with raises(ValueError, "must be at least 1, and a whole number"):
        jax.jit(lambda count: tokens.part(1, count))(2)


def test_a_seed_is_no_key():
    with raises(ValueError, "key is int, but must be a random key"):
        posenc_jax.generate(common.build_model("rope"), [[1, 2]], 0, max_new_tokens=2)


@pytest.mark.parametrize("name", READS)
def test_an_input_of_another_width(name):
    encoding = common.build(name)
    with raises(ValueError, f"x has {common.WIDTH + 2} channels", f"model_dim={common.WIDTH}"):
        encoding.tokens(text(T)).observed(encoding, jnp.ones((B, T, common.WIDTH + 2)))


def test_a_loss_of_whole_numbers():
    """The output layer, cast to them, would be zeros."""
    table, targets = jnp.ones((3, 2)), jnp.zeros(1, jnp.int32)
    with raises(ValueError, "x must be floating-point numbers, not int32"):
        posenc_jax.cross_entropy(jnp.ones((1, 2), jnp.int32), table, targets)
    for chunk in (0, 1.5):
        with raises(ValueError, f"chunk={chunk} must be at least 1, and a whole number"):
            posenc_jax.cross_entropy(jnp.ones((1, 2)), table, targets, chunk=chunk)


# What is of another kind

MODEL, ROPE = common.build_model("rope"), common.build("rope")
ALIBI, FOX = common.build("alibi"), common.build("fox")
IDS, X, Q = np.ones((B, T), np.int32), jnp.ones((B, T, common.WIDTH)), inputs()[0]
HAND_MADE = Tokens(jnp.arange(T)[None])


def generate(prompt=IDS, model=MODEL, **options):
    return posenc_jax.generate(model, prompt, jax.random.key(0), max_new_tokens=2, **options)


def attend(**options):
    return posenc_jax.attend(ROPE, Q, Q, Q, ROPE.tokens(text(T)), **options)


def losses(x=X, table=X[0], targets=IDS):
    return posenc_jax.cross_entropy(x, table, targets)


KINDS = [
    (lambda: text("3"), "length='3' must give whole numbers"),
    (lambda: text(3, "1"), "start='1' and length=3 must give whole numbers"),
    (lambda: text(-3), "length=-3 must give whole numbers"),
    (lambda: packed(np.zeros(3, int)), "segment_ids have shape (3,), but must be [B, T]"),
    (lambda: posenc_jax.zigzag("8", 2), "length='8' must be at least 1"),
    (lambda: posenc_jax.zigzag(8, 0), "devices=0 must be at least 1"),
    (lambda: ROPE.tokens([[0, 1], [0]]), "positions must be one array, but rows differ in"),
    (lambda: FOX.tokens(text(T)).observed(FOX, X.astype(int)), "floating-point", "not int32 of sh"),
    (lambda: FOX.tokens(text(T)).observed(FOX, X.tolist()), "one vector for each", "not list of"),
    *(
        (
            lambda bad=bad: ROPE.tokens(text(T)).part(bad, 2),
            f"start={bad!r} and count=2 must be",
        )
        for bad in ("1", 1.0, None, True, np.ones(1, int))
    ),
    (lambda: jax.jit(ROPE.tokens(text(T)).part, static_argnums=1)(1.0, 2), "start=", "must be"),
    *(
        (
            lambda replaced=replaced: posenc_jax.logits(
                ALIBI, Q, Q, Tokens(**{"positions": jnp.arange(T)[None]} | replaced)
            ),
            f"q_tokens has {what} of type {kind}, but they must be int32",
        )
        for what, kind in (("positions", "uint8"), ("positions", "bfloat16"), ("index", "uint32"))
        for replaced in [{what: jnp.arange(T, dtype=kind)[None]}]
    ),
    *(
        (lambda bad=bad: of_two_layers("fox").of_layer(bad), f"layer={bad!r} must be within")
        for bad in ("a", 1.0, None)
    ),
    *(
        (lambda bad=bad: MODEL.layer_at(bad), f"number={bad!r} must be within 0..1, and a")
        for bad in (9, -1, "a", 1.0, None, True)
    ),
    *(
        (lambda bad=bad: posenc_jax.Layers([ROPE]).at(bad), f"number={bad!r} must be at least 0")
        for bad in (-1, "a", 1.5, None)
    ),
    (lambda: posenc_jax.Layers([ROPE], [jnp.ones(1)]), "must be a whole number of keys"),
    (lambda: jax.jit(lambda w: posenc_jax.Layers([ROPE], [w]))(3), "window=", "whole number"),
    *(
        (lambda bad=bad: attend(sinks=bad), "sinks=", "must be an array of numbers, [H] or")
        for bad in (["a"], [None] * H, [[0.0], [0.0, 1.0]], {})
    ),
    (lambda: common.build_model("rope", sinks=3), "sinks=3 must be 'head' (one a head"),
    (lambda: MODEL.aux_loss(0), "key is int, but must be a random key"),
    (
        lambda: posenc_jax.describe(ROPE, num_heads=4, head_dim=8, length=4, num_kv_heads="a"),
        "num_kv_heads='a' must be at least 1",
    ),
    (lambda: losses(table=jnp.float32(1)), "table must be [V, D]", "not () with x"),
    (lambda: losses(x=jnp.float32(1)), "table must be [V, D]", "with x ()"),
    (lambda: common.build("seqpe", hook="input_add").embed(X, HAND_MADE), "not prepared for SeqPE"),
    (
        lambda: HAND_MADE.observed(common.build("kv_shift"), X),
        "tokens were not prepared for KVShift",
    ),
    (lambda: OnAxes(ROPE, axes=(0.5, 1)), "axes=(0.5, 1) must be a tuple of numbers of axes"),
    (lambda: MODEL(IDS, text(T), key=0), "key is int, but must be a random key"),
    *(
        (lambda bad=bad: attend(scale=bad), f"scale={bad} must be one real number", "finite")
        for bad in (float("inf"), float("nan"), 10**400, -1e39)
    ),
    *(
        (lambda name=name, bad=bad: generate(**{name: bad}), f"{name}={bad!r} must be")
        for name in ("temperature", "top_p")
        for bad in ("a", None, 1j)
    ),
    (
        lambda: generate([[1, 2], [1]]),
        "prompt_BT must be one array, but rows differ in length: pad",
    ),
    (lambda: generate(model=ROPE), "model must be a posenc_jax.Transformer, not RoPE"),
    (lambda: generate(next_positions=["a", "b"]), "next_positions=['a', 'b'] must be 2 numbers"),
    (
        lambda: posenc_jax.Cache.empty(ROPE, B, T),
        "model must be a posenc_jax.Transformer, not RoPE",
    ),
    (lambda: posenc_jax.Cache.empty(MODEL, B, T, axes="3"), "axes='3' must be at least 1"),
    (lambda: posenc_jax.Cache.empty(MODEL, B, T, dtype="uint8"), "dtype='uint8' of positions must"),
    (
        lambda: posenc_jax.Cache.empty(MODEL, B, T, segments="no"),
        "segments='no' must be True or Fa",
    ),
    (lambda: MODEL.extend(IDS, None), "cache must be a Cache, not NoneType: pass Cache.empty("),
    (
        lambda: common.build_model("nope", norm_epsilon=-1.0),
        "norm_epsilon=-1.0 must be a number, 0",
    ),
    (lambda: posenc_jax.Layers(ROPE), "encodings must be a list of them", "not a RoPE"),
    (lambda: posenc_jax.Layers([ROPE], 3), "windows=3 must be a list of them, such as [3]"),
    (lambda: posenc_jax.Layers([ROPE]).over(3, from_end="no"), "from_end='no' must be True or Fal"),
    (lambda: posenc_jax.make(["rope"]), "name=['rope'] must be a key of REGISTRY"),
    (lambda: posenc_jax.describe(ROPE, num_heads=4, head_dim=8, length="8"), "length='8' must be"),
    (lambda: losses(X.tolist()), "x must be an array, not list"),
    (lambda: losses(targets=IDS.tolist()), "targets must be an array, not list"),
    (lambda: losses(table=X[0].astype(int)), "table must be floating-point numbers, not int32"),
    (lambda: qwen2_vl(Text(3)), "segments=Text(tokens=3) must be a list of Text, Vision and Film"),
    (
        lambda: segments_of([7], image_token="7", video_token=8),
        "image_token='7' must be at least 0",
    ),
    (lambda: segments_of([7], image_token=7, video_token=8, merge=0), "merge=0 must be at least 1"),
    (lambda: videorope([Text(3)], delta="a"), "delta='a' must be a number above 0"),
    *(
        (lambda ids=ids: segments_of(ids, image_token=7, video_token=8), "ids must be token ids of")
        for ids in ("abc", [[1, 2]], [1.5])
    ),
]


@pytest.mark.parametrize(("call", "message"), [(call, message) for call, *message in KINDS])
def test_what_is_of_another_kind_is_refused_by_its_name(call, message):
    with raises(ValueError, *message):
        call()


@pytest.mark.parametrize("name", ADDS)
def test_positions_are_no_tokens(name):
    with raises(ValueError, "tokens must be Tokens, not ndarray: pass encoding.tokens(positi"):
        common.build(name).embed(X, text(T))


@pytest.mark.parametrize("name", ADDS)
def test_whole_numbers_are_no_token_embeddings(name):
    """A factor would make numbers of them."""
    encoding = common.build(name)
    with raises(ValueError, "x must be token embeddings, floating-point, not int32"):
        encoding.embed(X.astype(jnp.int32), encoding.tokens(text(T)))
