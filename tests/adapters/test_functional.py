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
from posenc_jax.encodings.rotary.frequencies import YaRN
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
    rule = YaRN(train_length=4, factor=2.0)
    rope = posenc_jax.make("yarn", head_dim=8, train_length=4, factor=2.0, layout=layout)
    cos, sin = functional.rope_tables(POSITIONS, 8, frequencies=rule)
    q, k = (functional.apply_rope(x, cos, sin, layout=layout) for x in (Q, K))
    expected = posenc_jax.attend(rope, Q, K, V, rope.tokens(POSITIONS))
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
        expected = posenc_jax.logits(encoding, 0 * Q, K, encoding.tokens(POSITIONS))
        np.testing.assert_allclose(added, expected, atol=1e-6)


def test_arrays_that_cannot_be_rotated_are_refused():
    """Tables of one token, as in decoding, would rotate all keys by the same angle."""
    cos, sin = functional.rope_tables(POSITIONS, head_dim=8)
    wrong = [
        (Q, cos[:, :1], sin[:, :1]),
        (Q, cos, sin[:, :1]),
        (Q, *(jnp.repeat(cos, 3, 0),) * 2),
        (Q, cos[:, :, None], sin[:, :, None]),
        (Q[0], cos[0, :, :2], sin[0, :, :2]),
        (Q.astype(int), cos, sin),
        (Q, cos.astype(int), sin.astype(int)),
        (Q, cos.tolist(), sin.tolist()),
    ]
    for arrays in wrong:
        common.refuses("cos_BTP of shape", lambda a=arrays: functional.apply_rope(*a))
    twice = [np.concatenate([table] * 2, axis=-1) for table in (cos, sin)]
    common.refuses(f"cos.*:{cos.shape[-1]}]", lambda: functional.apply_rope(Q, *twice))


def test_buckets_that_t5_does_not_have_are_refused():
    bias = functools.partial(functional.t5_bias, q_positions=POSITIONS, k_positions=POSITIONS)
    rows = jnp.ones((7, 2))
    common.refuses("table_RH.*=7 must be a multiple of 4", lambda: bias(rows, bidirectional=True))
    common.refuses("max_distance=3", lambda: bias(jnp.ones((8, 2)), max_distance=3))
    for table in (jnp.ones(8), [[1.0, 2.0]] * 8, jnp.ones((8, 2), int)):
        common.refuses("table_RH", lambda table=table: bias(table))


BIASES = [
    functools.partial(functional.alibi_bias, num_heads=2),
    functools.partial(functional.t5_bias, jnp.arange(16.0).reshape(8, 2)),
]


def test_biases_are_of_one_batch_or_of_two_that_are_as_large():
    two, three = (jnp.repeat(POSITIONS, count, axis=0) for count in (2, 3))
    for bias in BIASES:
        assert bias(two, POSITIONS).shape == bias(POSITIONS, two).shape == (2, 2, 7, 7)
        common.refuses("k_positions", lambda bias=bias: bias(two, three))


def test_biases_subtract_positions_of_small_types_exactly():
    for bias in BIASES:
        small = np.asarray(POSITIONS, np.uint8)
        np.testing.assert_array_equal(bias(small, small), bias(POSITIONS, POSITIONS))
        rounded = POSITIONS.astype(jnp.bfloat16)
        common.refuses("positions are bfloat16", lambda b=bias, p=rounded: b(p, p))


@pytest.mark.parametrize("name", ["alibi", "t5", "fire"])
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
    expected = posenc_jax.logits(encoding, Q, K, encoding.tokens(POSITIONS))[0]
    np.testing.assert_allclose(logits, expected, atol=1e-5)


@pytest.mark.parametrize(
    "build",
    [
        lambda: common.build("randomized", over="alibi"),
        lambda: common.build("random_float", over="alibi"),
        lambda: UltraViCo(common.build("alibi"), window=4),
    ],
    ids=["length", "length without a draw", "index"],
)
def test_score_mod_refuses_a_scheme_that_reads_more_than_two_positions(build):
    mod = functools.partial(functional.score_mod, num_heads=common.HEADS)
    common.refuses("needs more than a logit and two positions", lambda: mod(build()))


def test_score_mod_names_what_is_wrong():
    alibi = common.build("alibi")
    for encoding, num_heads, word in ((alibi, 2, "num_heads=4.*=2"), ("alibi", 4, "not 'alibi'")):
        given = dict(encoding=encoding, num_heads=num_heads)
        common.refuses(word, lambda given=given: functional.score_mod(**given))


@pytest.mark.parametrize("name", common.one_of_each_kind()[1::3])
def test_every_scheme_is_init_and_attend(name):
    overrides = schemes.ALL[name].overrides if name in schemes.ALL else {}
    keywords = SIZES | overrides
    scheme, key = functional.scheme(name, **keywords), jax.random.key(3)
    params = scheme.init(key)
    encoding = posenc_jax.make(name, rngs=nnx.Rngs(key), **keywords)
    x_BTD = jnp.asarray(common.normal(0, 1, 7, 4))

    @jax.jit
    def by_module(encoding, q, k, v, x_BTD):
        tokens = encoding.tokens(POSITIONS)
        attended = posenc_jax.attend(encoding, q, k, v, tokens, x=x_BTD)
        return attended, encoding.embed(x_BTD, tokens)

    @jax.jit
    def by_functions(params, q, k, v, x_BTD):
        attended = scheme.attend(params, q, k, v, POSITIONS, x=x_BTD)
        return attended, scheme.embed(params, x_BTD, POSITIONS)

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
    expected = encoding.embed(x_BTD, encoding.tokens(POSITIONS[:1], segment_ids))
    actual = learned.embed(params, x_BTD, POSITIONS[:1], segment_ids=segment_ids)
    np.testing.assert_array_equal(actual, expected)

    drawn = functional.scheme("randomized", head_dim=common.HEAD_DIM)
    tokens = drawn.encoding({}).tokens(POSITIONS, segment_ids, length=9, key=key)
    expected = posenc_jax.attend(drawn.encoding({}), Q, K, V, tokens)
    options = dict(segment_ids=segment_ids, length=9, key=key)
    np.testing.assert_array_equal(drawn.attend({}, Q, K, V, POSITIONS, **options), expected)


@pytest.mark.parametrize(("name", "is_trained"), [("fire", True), ("fope", False)])
def test_optax_trains_parameters_and_leaves_constants(name, is_trained):
    scheme, params = initialized(name)

    def loss(params):
        return (scheme.attend(params, Q, K, V, POSITIONS) ** 2).sum()

    optimizer = optax.adam(0.1)
    updates, _ = optimizer.update(jax.jit(jax.grad(loss))(params), optimizer.init(params))
    assert any(update.any() for update in jax.tree.leaves(updates)) == is_trained


def test_a_scheme_is_a_key_of_jit():
    one, same, other = (functional.scheme("rope", head_dim=8, base=b) for b in (1e4, 1e4, 1e5))
    assert hash(one) == hash(same) and one == same != other
    attend = jax.jit(functional.Scheme.attend, static_argnums=0)
    expected = one.attend({}, Q, K, V, POSITIONS)
    np.testing.assert_allclose(attend(one, {}, Q, K, V, POSITIONS), expected, atol=1e-6)


def test_params_that_are_missing_are_named():
    scheme, params = initialized("fox")
    x_BTD = common.normal(0, 3, 7, common.WIDTH)
    gate = next(iter(params))
    common.refuses(f"lack {gate}", lambda: scheme.attend({}, Q, K, V, POSITIONS, x=x_BTD))


@pytest.mark.parametrize("name", ["fope", "learned", "fire"])
def test_params_of_other_names_or_shapes_are_named(name):
    scheme, params = initialized(name)
    last = [*params][-1]
    cut = {last: jax.tree.map(lambda p: p[:-1], params[last])}
    for wrong, path in (({"zz": Q}, "zz"), (cut, last)):
        common.refuses(f"params of {name} have {path}", lambda w=wrong: scheme.encoding(params | w))


def test_params_may_be_the_state_of_a_module():
    scheme, params = initialized("fire")
    state = nnx.state(scheme.encoding(params))
    expected = scheme.attend(params, Q, K, V, POSITIONS)
    np.testing.assert_array_equal(scheme.attend(state, Q, K, V, POSITIONS), expected)


def test_a_pattern_of_layers_is_refused():
    common.refuses("name='irope'", lambda: functional.scheme("irope", head_dim=8))
