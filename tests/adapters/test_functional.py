"""Tests the pure functions against the modules, over every scheme and in plain JAX."""

import functools

import common
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import schemes
from flax import nnx

import posenc_jax
from posenc_jax import functional
from posenc_jax.encodings.rotary.frequencies.yarn import YaRNFrequencies
from posenc_jax.encodings.wrappers.ultravico import UltraViCo

POSITIONS = jnp.arange(7)[None]
Q, K, V = jax.random.normal(jax.random.key(0), (3, 1, 7, 2, 8))
SIZES = dict(num_heads=2, head_dim=8, model_dim=4, train_length=8)


def initialized(name):
    """Returns a scheme as functions, and its parameters."""
    scheme = functional.scheme(name, **SIZES)
    return scheme, scheme.init(jax.random.key(0))


@pytest.mark.parametrize("layout", ["half", "interleaved"])
def test_tables_and_rotation_are_those_of_attention(layout):
    rule = YaRNFrequencies(train_length=4, factor=2.0)
    rope = posenc_jax.make("yarn", head_dim=8, train_length=4, factor=2.0, layout=layout)
    cos, sin = functional.rope_tables(POSITIONS, 8, frequencies=rule)
    q, k = (functional.apply_rope(x, cos, sin, layout=layout) for x in (Q, K))
    expected = posenc_jax.attend(rope.at(POSITIONS), Q, K, V)
    out = jax.nn.dot_product_attention(q, k, V, is_causal=True)
    np.testing.assert_allclose(out, expected, atol=2e-6)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_biases_are_those_of_attention(bidirectional):
    t5 = functional.scheme("t5", num_heads=2, model_dim=4, bidirectional=bidirectional)
    table = t5.init(jax.random.key(1))["table"]
    bias = functional.t5_bias(table, POSITIONS, POSITIONS, bidirectional=bidirectional)
    alibi = functional.alibi_bias(POSITIONS, POSITIONS, num_heads=2)
    encodings = (t5.encoding({"table": table}), posenc_jax.make("alibi", num_heads=2))
    for encoding, added in zip(encodings, (bias, alibi), strict=True):
        expected = posenc_jax.logits(encoding.at(POSITIONS), 0 * Q, K)
        np.testing.assert_allclose(added, expected, atol=1e-6)


BIASES = [
    functools.partial(functional.alibi_bias, num_heads=2),
    functools.partial(functional.t5_bias, jnp.arange(16.0).reshape(8, 2)),
]


@pytest.mark.parametrize("bias", BIASES, ids=["alibi", "t5"])
def test_positions_of_biases(bias):
    """They are of one batch or of two as large; those of small types are subtracted exactly."""
    two = jnp.repeat(POSITIONS, 2, axis=0)
    assert bias(two, POSITIONS).shape == bias(POSITIONS, two).shape == (2, 2, 7, 7)
    small = np.asarray(POSITIONS, np.uint8)
    np.testing.assert_array_equal(bias(small, small), bias(POSITIONS, POSITIONS))
    rounded = POSITIONS.astype(jnp.bfloat16)
    common.refuses("positions are bfloat16", lambda: bias(rounded, rounded))


@pytest.mark.parametrize("name", ["alibi", "fire"])
def test_score_mod_is_the_score_of_attention(name):
    scheme, params = initialized(name)
    encoding = scheme.encoding(params)
    mod = functional.score_mod(encoding, num_heads=2)
    plain = jnp.einsum("bthc,bshc->bhts", Q, K, precision="highest")[0] / 8**0.5
    positions = POSITIONS[0]
    over_heads = jax.vmap(mod, (0, 0, None, None))
    over_keys = jax.vmap(over_heads, (1, None, None, 0), out_axes=1)
    over_queries = jax.vmap(over_keys, (1, None, 0, None), out_axes=1)
    logits = over_queries(plain, jnp.arange(2), positions, positions)
    expected = posenc_jax.logits(encoding.at(POSITIONS), Q, K)[0]
    np.testing.assert_allclose(logits, expected, atol=1e-5)


@pytest.mark.parametrize("name", ["sinusoidal", "shaw", "fox"])
def test_every_scheme_is_init_and_attend(name):
    overrides = schemes.ALL[name].overrides if name in schemes.ALL else {}
    keywords = SIZES | overrides
    scheme, key = functional.scheme(name, **keywords), jax.random.key(3)
    params = scheme.init(key)
    encoding = posenc_jax.make(name, rngs=nnx.Rngs(key), **keywords)
    x_BTD = jnp.asarray(common.normal(0, 1, 7, 4))

    @jax.jit
    def by_module(encoding, q, k, v, x_BTD):
        here = encoding.at(POSITIONS)
        attended = posenc_jax.attend(here, q, k, v, x=x_BTD)
        return attended, here.embed(x_BTD)

    @jax.jit
    def by_functions(params, q, k, v, x_BTD):
        here = scheme.encoding(params).at(POSITIONS)
        return posenc_jax.attend(here, q, k, v, x=x_BTD), here.embed(x_BTD)

    expected, embedded = by_module(encoding, Q, K, V, x_BTD)
    out, same = by_functions(params, Q, K, V, x_BTD)
    np.testing.assert_allclose(out, expected, atol=1e-6)
    np.testing.assert_array_equal(embedded, same)


@pytest.mark.parametrize(("name", "is_trained"), [("fire", True), ("fope", False)])
def test_optax_trains_parameters_and_leaves_constants(name, is_trained):
    scheme, params = initialized(name)

    def loss(params):
        return (posenc_jax.attend(scheme.encoding(params).at(POSITIONS), Q, K, V) ** 2).sum()

    optimizer = optax.adam(0.1)
    updates, _ = optimizer.update(jax.jit(jax.grad(loss))(params), optimizer.init(params))
    assert any(update.any() for update in jax.tree.leaves(updates)) == is_trained


def test_a_scheme_is_a_key_of_jit():
    one, same, other = (functional.scheme("rope", head_dim=8, base=b) for b in (1e4, 1e4, 1e5))
    assert hash(one) == hash(same) and one == same != other
    encoding = jax.jit(functional.Scheme.encoding, static_argnums=0)
    expected, actual = (
        posenc_jax.attend(made(one, {}).at(POSITIONS), Q, K, V)
        for made in (functional.Scheme.encoding, encoding)
    )
    np.testing.assert_allclose(actual, expected, atol=1e-6)


COS, SIN = functional.rope_tables(POSITIONS, head_dim=8)
T5 = functools.partial(functional.t5_bias, q_positions=POSITIONS, k_positions=POSITIONS)
FIRE = functional.scheme("fire", **SIZES)
# Words of errors, and calls that are refused.
REFUSED = [
    # Tables of one token, as in decoding, would rotate all keys by the same angle.
    ("cos_BTP", lambda: functional.apply_rope(Q, COS[:, :1], SIN[:, :1])),
    ("cos_BTP", lambda: functional.apply_rope(Q, COS, SIN[:, :1])),
    ("cos_BTP", lambda: functional.apply_rope(Q.astype(int), COS, SIN)),
    ("cos_BTP", lambda: functional.apply_rope(Q, *(jnp.tile(x, 2) for x in (COS, SIN)))),
    ("table_RH.*=7", lambda: T5(jnp.ones((7, 2)), bidirectional=True)),
    ("max_distance=3", lambda: T5(jnp.ones((8, 2)), max_distance=3)),
    ("table_RH", lambda: T5(jnp.ones(8))),
    (
        "two positions",
        lambda: functional.score_mod(common.build("randomized", over="alibi"), num_heads=4),
    ),
    (
        "two positions",
        lambda: functional.score_mod(UltraViCo(common.build("alibi"), window=4), num_heads=4),
    ),
    ("num_heads=4", lambda: functional.score_mod(common.build("alibi"), num_heads=2)),
    ("zz", lambda: FIRE.encoding(FIRE.init(jax.random.key(0)) | {"zz": Q})),
    ("outer", lambda: FIRE.encoding(FIRE.init(jax.random.key(0)) | {"outer": {"bias": Q}})),
    ("name='irope'", lambda: functional.scheme("irope", head_dim=8)),
]


@pytest.mark.parametrize(("word", "call"), REFUSED)
def test_what_is_refused(word, call):
    common.refuses(word, call)
