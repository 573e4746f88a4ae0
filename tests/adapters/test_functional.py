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


def test_arrays_that_cannot_be_rotated_are_refused():
    """Tables of one token, as in decoding, would rotate all keys by the same angle."""
    cos, sin = functional.rope_tables(POSITIONS, head_dim=8)
    wrong = [
        (Q, cos[:, :1], sin[:, :1]),
        (Q, cos, sin[:, :1]),
        (Q, cos[:, :, None], sin[:, :, None]),
        (Q.astype(int), cos, sin),
        (Q, *(np.concatenate([table] * 2, axis=-1) for table in (cos, sin))),
    ]
    for arrays in wrong:
        common.refuses("cos_BTP", lambda a=arrays: functional.apply_rope(*a))


def test_buckets_that_t5_does_not_have_are_refused():
    bias = functools.partial(functional.t5_bias, q_positions=POSITIONS, k_positions=POSITIONS)
    common.refuses("table_RH.*=7", lambda: bias(jnp.ones((7, 2)), bidirectional=True))
    common.refuses("max_distance=3", lambda: bias(jnp.ones((8, 2)), max_distance=3))
    common.refuses("table_RH", lambda: bias(jnp.ones(8)))


BIASES = [
    functools.partial(functional.alibi_bias, num_heads=2),
    functools.partial(functional.t5_bias, jnp.arange(16.0).reshape(8, 2)),
]


@pytest.mark.parametrize("bias", BIASES, ids=["alibi", "t5"])
def test_positions_of_biases(bias):
    """They are of one batch or of two as large; those of small types are subtracted exactly."""
    two, three = (jnp.repeat(POSITIONS, count, axis=0) for count in (2, 3))
    assert bias(two, POSITIONS).shape == bias(POSITIONS, two).shape == (2, 2, 7, 7)
    common.refuses("k_positions", lambda: bias(two, three))
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


def test_score_mod_refuses_a_scheme_that_reads_more_than_two_positions():
    mod = functools.partial(functional.score_mod, num_heads=common.HEADS)
    alibi, randomized = common.build("alibi"), common.build("randomized", over="alibi")
    for encoding in (randomized, UltraViCo(alibi, window=4)):
        common.refuses("two positions", lambda encoding=encoding: mod(encoding))
    common.refuses("num_heads=4", lambda: functional.score_mod(alibi, num_heads=2))


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
        here = scheme.at(params, POSITIONS)
        return posenc_jax.attend(here, q, k, v, x=x_BTD), here.embed(x_BTD)

    expected, embedded = by_module(encoding, Q, K, V, x_BTD)
    out, same = by_functions(params, Q, K, V, x_BTD)
    np.testing.assert_allclose(out, expected, atol=1e-6)
    np.testing.assert_array_equal(embedded, same)


def test_tokens_have_segments_a_length_and_a_key():
    """A table that is interpolated, and positions that are drawn, would be others without them."""
    segment_ids, key = jnp.array([[0] * 3 + [1] * 4]), jax.random.key(1)
    learned = functional.scheme("learned", model_dim=4, train_length=2, out_of_range="interpolate")
    params, x_BTD = learned.init(key), jnp.zeros((1, 7, 4))
    encoding = learned.encoding(params)
    expected = encoding.at(POSITIONS[:1], segment_ids).embed(x_BTD)
    actual = learned.at(params, POSITIONS[:1], segment_ids).embed(x_BTD)
    np.testing.assert_array_equal(actual, expected)

    drawn = functional.scheme("randomized", head_dim=common.HEAD_DIM)
    here = drawn.encoding({}).at(POSITIONS, segment_ids, length=9, key=key)
    expected = posenc_jax.attend(here, Q, K, V)
    options = dict(segment_ids=segment_ids, length=9, key=key)
    actual = posenc_jax.attend(drawn.at({}, POSITIONS, **options), Q, K, V)
    np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize(("name", "is_trained"), [("fire", True), ("fope", False)])
def test_optax_trains_parameters_and_leaves_constants(name, is_trained):
    scheme, params = initialized(name)

    def loss(params):
        return (posenc_jax.attend(scheme.at(params, POSITIONS), Q, K, V) ** 2).sum()

    optimizer = optax.adam(0.1)
    updates, _ = optimizer.update(jax.jit(jax.grad(loss))(params), optimizer.init(params))
    assert any(update.any() for update in jax.tree.leaves(updates)) == is_trained


def test_a_scheme_is_a_key_of_jit():
    one, same, other = (functional.scheme("rope", head_dim=8, base=b) for b in (1e4, 1e4, 1e5))
    assert hash(one) == hash(same) and one == same != other
    at = jax.jit(functional.Scheme.at, static_argnums=0)
    expected, actual = (
        posenc_jax.attend(f(one, {}, POSITIONS), Q, K, V) for f in (functional.Scheme.at, at)
    )
    np.testing.assert_allclose(actual, expected, atol=1e-6)


def test_params_that_do_not_fit_are_named():
    scheme, params = initialized("fire")
    last = [*params][-1]
    cut = {last: jax.tree.map(lambda p: p[:-1], params[last])}
    for wrong, path in (({}, next(iter(params))), (params | {"zz": Q}, "zz"), (params | cut, last)):
        common.refuses(path, lambda wrong=wrong: scheme.encoding(wrong))


def test_a_pattern_of_layers_is_refused():
    common.refuses("name='irope'", lambda: functional.scheme("irope", head_dim=8))
