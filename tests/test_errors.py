"""Bad input raises an error that names the argument, the value and what is allowed."""

import re

import common
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import posenc_jax
from posenc_jax.rotary.positions import text

B, T, H, C = 2, 6, common.HEADS, common.HEAD_DIM


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
    with raises(ValueError, "unknown encoding 'zzz'; valid: alibi", "dynamic_ntk", "yarn"):
        posenc_jax.make("zzz")


def test_unknown_keyword_names_the_nearest():
    with raises(TypeError, "encoding 'yarn' has no keyword 'beta_fats'", "'beta_fast'", "truncate"):
        common.build("yarn", beta_fats=3)
    with raises(TypeError, "encoding 'alibi' has no keyword 'slope'; it has none of its own"):
        common.build("alibi", slope=1)


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
    with raises(ValueError, f"head_dim={value!r} must be a positive int"):
        posenc_jax.make("rope", head_dim=value)


@pytest.mark.parametrize(
    ("name", "bad", "message"),
    [
        ("rope", {"head_dim": 7}, "within 2..head_dim=7, not 7"),
        ("rope", {"rotary_dim": 3}, "not 3: channels turn in pairs"),
        ("rope", {"rotary_dim": 10}, "within 2..head_dim=8, not 10"),
        ("rope", {"rotary_dim": 0}, "not 0"),
        ("rope", {"layout": "neox"}, "layout='neox' must be 'half' or 'interleaved'"),
        ("rope", {"base": 1.0}, "base=1.0 must be a number above 1"),
        ("rope", {"base": float("nan")}, "base=nan must be a number above 1"),
        ("rope", {"axes": (0, 1)}, "axes names 2 channel pairs, but rotary_dim=8 has 4"),
        ("pi", {"factor": 0.5}, "factor=0.5 must be a finite number >= 1"),
        ("ntk", {"factor": float("inf")}, "factor=inf must be a finite number >= 1"),
        ("dynamic_ntk", {"factor": None}, "factor=None must be a finite number >= 1"),
        ("yarn", {"factor": 0}, "factor=0 must be a finite number >= 1"),
        ("yarn", {"ramp": "linear"}, "ramp='linear' must be 'index' or 'turns'"),
        ("yarn", {"beta_fast": 1.0}, "beta_fast=1.0 must be larger than beta_slow=1.0"),
        ("yarn", {"beta_slow": 0.0}, "beta_slow=0.0, and both positive"),
        ("hope", {"cut_cycles": -1.0}, "cut_cycles=-1.0 must be a number of turns, 0 or more"),
        ("hope", {"cut_cycles": float("nan")}, "cut_cycles=nan must be a number of turns"),
        ("p_rope", {"fraction": 0.0}, "fraction=0.0 must be in (0, 1]"),
        ("p_rope", {"fraction": 1.5}, "fraction=1.5 must be in (0, 1]"),
        ("p_rope", {"factor": 0.0}, "factor=0.0 must be a finite number >= 1"),
        ("t5", {"num_buckets": 7}, "num_buckets=7 must be a positive multiple of 2"),
        ("t5", {"num_buckets": 0}, "num_buckets=0 must be a positive multiple of 2"),
        (
            "t5",
            {"num_buckets": 6, "bidirectional": True},
            "num_buckets=6 must be a positive multiple of 4",
        ),
        ("t5", {"max_distance": 16}, "max_distance=16 must exceed the 16 distances"),
        ("fire", {"init_length": 0.0}, "init_length=0.0 must be a positive number of tokens"),
        ("learned", {"out_of_range": "wrap"}, "out_of_range='wrap' must be one of ('error'"),
        ("sinusoidal", {"model_dim": 33}, "model_dim=33 must be even"),
        ("sinusoidal", {"layout": "pairs"}, "layout='pairs' must be 'half' or 'interleaved'"),
        ("transformer_xl", {"model_dim": 33}, "model_dim=33 must be even"),
        ("path", {"num_kv_heads": 3}, "num_kv_heads=3 must divide num_heads=4"),
        ("path", {"rank": 0}, "rank=0 must be at least 1"),
        ("path", {"width": 0}, "width=0 must be at least 1"),
        ("selective_rope", {"model_dim": 33}, "num_heads=4 must divide model_dim=33"),
        ("selective_rope", {"rank": 0}, "rank=0 must be at least 1"),
        ("selective_rope", {"width": 0}, "width=0 must be at least 1"),
    ],
)
def test_bad_value_of_a_keyword(name, bad, message):
    with raises(ValueError, message):
        common.build(name, **bad)


def test_ntk_needs_two_pairs():
    encoding = common.build("ntk", rotary_dim=2)
    with raises(ValueError, "NTK scaling needs at least 4 rotary channels, not 2"):
        encoding.prepare(text(3), 3)


# Positions


def test_positions_must_be_able_to_count():
    encoding = common.build("rope")
    for dtype in (jnp.bfloat16, jnp.float16, bool):
        with raises(ValueError, "positions must be int or float32", np.dtype(dtype).name):
            posenc_jax.Tokens.of(encoding, text(T).astype(dtype))
    with raises(ValueError, "[B, T] or [A, B, T]", "(6,)", "add a batch axis with [None]"):
        posenc_jax.Tokens.of(encoding, text(T)[0])


def test_position_axes_must_fit():
    plain, spatial = common.build("rope"), common.build("rope", axes=(0, 1, 2, 0))
    stacked = jnp.zeros((2, 1, T), jnp.int32)
    with raises(ValueError, "positions have shape (2, 1, 6)", "one axis", "axes="):
        posenc_jax.Tokens.of(plain, stacked)
    for positions in (text(T), stacked):
        with raises(ValueError, "axes=(0, 1, 2, 0) needs positions [A, B, T] with A > 2"):
            posenc_jax.Tokens.of(spatial, positions)


@pytest.mark.parametrize("name", ["alibi", "t5", "kerple_log", "fire"])
def test_distances_need_one_position_axis(name):
    encoding = common.build(name)
    tokens = posenc_jax.Tokens.of(encoding, jnp.zeros((2, 1, T), jnp.int32))
    with raises(ValueError, "a distance needs one position axis", "(2, 1, 6)"):
        posenc_jax.attend(encoding, *inputs(), tokens)


# attend


@pytest.mark.parametrize("name", ["alibi", "t5", "kerple_log", "fire"])
def test_another_number_of_heads(name):
    encoding = common.build(name)
    tokens = posenc_jax.Tokens.of(encoding, text(T))
    message = "the encoding was made for num_heads=4, but attention has 2 query heads"
    with raises(ValueError, message):
        posenc_jax.attend(encoding, *inputs(num_heads=2), tokens)


@pytest.mark.parametrize("name", ["fox", "path"])
def test_another_number_of_heads_than_gates(name):
    encoding = common.build(name)
    x_BTD = jnp.ones((B, T, common.WIDTH))
    tokens = posenc_jax.Tokens.of(encoding, text(T)).read(encoding, x_BTD)
    with raises(ValueError, "the encoding was made for num_heads=4, but attention has 2 query"):
        posenc_jax.attend(encoding, *inputs(num_heads=2), tokens)


def test_heads_that_do_not_share_angles():
    encoding = common.build("selective_rope")
    x_BTD = jnp.ones((B, T, common.WIDTH))
    tokens = posenc_jax.Tokens.of(encoding, text(T)).read(encoding, x_BTD)
    message = "made for num_kv_heads=4, of which kv heads must be a multiple, not 2"
    with raises(ValueError, message, "pass num_kv_heads= to make"):
        posenc_jax.attend(encoding, *inputs(num_kv_heads=2), tokens)


def test_shapes_must_fit():
    encoding = common.build("rope")
    tokens = posenc_jax.Tokens.of(encoding, text(T))
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
    short, long = (posenc_jax.Tokens.of(encoding, text(n)) for n in (T, T + 2))
    with raises(ValueError, "k_tokens has positions of shape (1, 6)", "8 tokens", "[2, 8]"):
        posenc_jax.attend(encoding, q, k, v, short)
    with raises(ValueError, "q_tokens has positions of shape (1, 8)", "6 tokens"):
        posenc_jax.attend(encoding, q, k, v, long, long)
    three_rows = posenc_jax.Tokens.of(encoding, jnp.tile(text(T), (3, 1)))
    with raises(ValueError, "positions of shape (3, 6)", "batch of 2"):
        posenc_jax.attend(encoding, *inputs(), three_rows)


def test_segments_of_both_sides_or_of_neither():
    encoding = common.build("nope")
    plain = posenc_jax.Tokens.of(encoding, text(T))
    packed = posenc_jax.Tokens.of(encoding, text(T), jnp.zeros((1, T), jnp.int32))
    with raises(ValueError, "segment_ids must be given for both queries and keys"):
        posenc_jax.attend(encoding, *inputs(), plain, packed)


@pytest.mark.parametrize("name", ["rope", "t5"])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_query_that_sees_nothing_gives_zeros(name, dtype):
    """And gradients without NaN."""
    encoding = common.build(name)
    q, k, v = (x.astype(dtype) for x in inputs())
    q_segments = jnp.array([[0, 0, 7, 0, 0, 0]])
    q_tokens = posenc_jax.Tokens.of(encoding, text(T), q_segments)
    k_tokens = posenc_jax.Tokens.of(encoding, text(T), jnp.zeros_like(q_segments))

    @jax.jit
    def attend(q, k, v):
        return posenc_jax.attend(encoding, q, k, v, q_tokens, k_tokens)

    output = attend(q, k, v)
    assert (output[:, 2] == 0).all()
    assert (jnp.abs(output[:, 3:]).max(axis=(0, 2, 3)) > 0.1).all()
    for gradient in jax.grad(lambda *qkv: (attend(*qkv) ** 2).sum(), argnums=(0, 1, 2))(q, k, v):
        assert jnp.isfinite(gradient).all()


def test_huge_logits_do_not_overflow():
    encoding = common.build("nope")
    tokens = posenc_jax.Tokens.of(encoding, text(T))
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
    with raises(ValueError, "a pattern of 3 encodings does not repeat evenly over 4 layers"):
        common.build_model([rope, rope, nope], num_layers=4)
    with raises(ValueError, "a pattern needs encodings", "got 0 encodings and 0 windows"):
        common.build_model([])
    model = common.build_model(rope)
    with raises(ValueError, "a pattern of 3 encodings does not repeat evenly over 2 layers"):
        model(jnp.zeros((1, T), jnp.int32), text(T), encoding=[rope, rope, nope])


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
