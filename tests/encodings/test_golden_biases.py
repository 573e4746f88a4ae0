"""Compares biases by distance with other people's code."""

import common
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from golden_checks import by_token, close

import posenc_jax
from posenc_jax.encodings.bias.kerple import inverse_exponent, inverse_positive
from posenc_jax.positions import text


@pytest.mark.parametrize("num_heads", [1, 2, 4, 8, 12, 16, 20, 32])
def test_alibi_slopes(num_heads):
    arrays, _ = common.golden("alibi_slopes")
    encoding = posenc_jax.make("alibi", num_heads=num_heads)
    slopes = -common.bias(encoding, np.array([1]), np.array([0]), num_heads)[:, 0, 0]
    close(slopes, arrays[f"bloom_H{num_heads}"], rtol=1e-6, atol=0)
    close(slopes, arrays[f"mpt_H{num_heads}"], rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", ["alibi_bias_h4_T12", "alibi_bias_h12_T9"])
def test_alibi_probabilities(name):
    arrays, params = common.golden(name)
    T, num_heads = params["T"], params["heads"]
    encoding = posenc_jax.make("alibi", num_heads=num_heads)
    last_row = common.bias(encoding, np.array([T - 1]), np.arange(T), num_heads)[:, 0]
    close(last_row, arrays["mpt_bias_row"])
    tokens = encoding.tokens(text(T))
    q, k = (by_token(arrays[key]).astype(np.float32) for key in ("q", "k"))
    actual = common.probabilities(encoding, q, k, tokens)
    close(actual, arrays["causal_probs"], rtol=1e-4)


def test_alibi_between_any_positions():
    arrays, params = common.golden("xt_alibi_h12")
    encoding = posenc_jax.make("alibi", num_heads=12)
    queries = np.arange(params["k_len"] - params["q_len"], params["k_len"])
    close(common.bias(encoding, queries, np.arange(params["k_len"]), 12), arrays["bias"])
    actual = common.bias(encoding, arrays["pos_i"], arrays["pos_j"], 12)
    close(actual, arrays["bias_custom"])


def test_alibi_is_not_rounded_to_bfloat16():
    arrays, params = common.golden("alibi_falcon_bf16_trap")
    T, num_heads = params["T"], params["heads"]
    encoding = posenc_jax.make("alibi", num_heads=num_heads)
    bias = common.bias(encoding, np.array([T - 1]), np.arange(T), num_heads)
    last_row = np.asarray(bias)[:, 0]
    wrong = arrays["falcon_bias_row"]
    wrong = wrong - wrong[:, -1:]
    # What Falcon has is wrong by whole units of a logit.
    assert np.abs(last_row - wrong).max() > 1
    exact = last_row[:, -2:-1].astype(np.float64) * np.arange(T - 1, -1, -1)
    close(last_row, exact, rtol=1e-6)


# T5


@pytest.mark.parametrize(
    ("name", "bidirectional"),
    [("t5_bucket_causal_32_128", False), ("t5_bucket_bidir_32_128", True)],
)
def test_t5_buckets(name, bidirectional):
    arrays, params = common.golden(name)
    encoding = posenc_jax.make(
        "t5", num_heads=1, model_dim=1, bidirectional=bidirectional, rngs=nnx.Rngs(0)
    )
    encoding.table[...] = jnp.arange(params["num_buckets"], dtype=jnp.float32)[:, None]
    buckets = common.bias(encoding, np.array([0]), arrays["relative_position"], 1)[0, 0]
    np.testing.assert_array_equal(buckets, arrays["bucket"])


def test_t5_bias_and_probabilities():
    arrays, params = common.golden("t5_bias_h4_T40")
    T, num_heads = params["T"], params["heads"]
    encoding = posenc_jax.make("t5", num_heads=num_heads, model_dim=1, rngs=nnx.Rngs(0))
    encoding.table[...] = jnp.asarray(arrays["table"], jnp.float32)
    close(common.bias(encoding, np.arange(T), np.arange(T), num_heads), arrays["bias"])
    tokens = encoding.tokens(text(T))
    q, k = (by_token(arrays[key]).astype(np.float32) for key in ("q", "k"))
    causal = np.allclose(np.triu(arrays["probs"], 1), 0)
    actual = common.probabilities(encoding, q, k, tokens, scale=1.0, causal=causal)
    close(actual, arrays["probs"], rtol=1e-4)


@pytest.mark.parametrize("name", ["xt_t5_bias_bidir", "xt_t5_bias_causal_cache"])
def test_t5_of_x_transformers(name):
    """In x-transformers queries are the last of the keys, and the bias is multiplied by sqrt(d)."""
    arrays, params = common.golden(name)
    encoding = posenc_jax.make(
        "t5",
        num_heads=params["heads"],
        model_dim=1,
        max_distance=params["max_distance"],
        bidirectional=not params["causal"],
        rngs=nnx.Rngs(0),
    )
    encoding.table[...] = jnp.asarray(arrays["table"], jnp.float32)
    keys = np.arange(params["k_len"])
    actual = common.bias(encoding, keys[-params["q_len"] :], keys, params["heads"])
    close(params["scale"] * actual, arrays["bias"])


# KERPLE


@pytest.mark.parametrize("kind", ["log", "power"])
def test_kerple(kind):
    arrays, params = common.golden("kerple_h4_T12")
    T, num_heads = params["T"], params["heads"]
    encoding = posenc_jax.make(f"kerple_{kind}", num_heads=num_heads, rngs=nnx.Rngs(0))
    inverse_p = inverse_positive if kind == "log" else inverse_exponent
    for raw, key, inverse in (
        (encoding.raw_p, "p", inverse_p),
        (encoding.raw_a, "a", inverse_positive),
    ):
        clamped = np.maximum(arrays[f"{kind}_{key}"], params["eps"] + 1e-7)
        raw[...] = inverse(jnp.asarray(clamped, jnp.float32))
    actual = common.bias(encoding, np.arange(T), np.arange(T), num_heads)
    close(np.tril(actual), np.tril(arrays[f"{kind}_bias"][0]), rtol=1e-4)


def test_kerple_parameters_stay_in_range():
    """Training takes no parameter out of range; published ones survive the way there and back."""
    raw, distance = jnp.array([-50.0, -1.0, 2.0, 50.0]), np.arange(3)
    encoding = posenc_jax.make("kerple_power", num_heads=4, rngs=nnx.Rngs(0))
    encoding.raw_p[...], encoding.raw_a[...] = raw, inverse_positive(jnp.ones(4))
    at_two = -np.asarray(common.bias(encoding, distance[2:], distance[:1], 4))[:, 0, 0]
    assert (at_two >= 2**0.01 - 1e-6).all() and (at_two <= 2**2 + 1e-6).all()
    close(at_two[[0, 3]], [2**0.01, 4.0])
    published = jnp.array([0.011, 0.5, 1.0, 1.99])
    close(encoding.p_of(inverse_exponent(published)), published, rtol=1e-4)


# Sandwich


def test_sandwich():
    arrays, params = common.golden("sandwich_T20_d32_h4")
    T, num_heads = params["T"], params["heads"]
    encoding = posenc_jax.make(
        "sandwich", num_heads=num_heads, channels=params["bar_d"], base=params["base"]
    )
    actual = np.asarray(common.bias(encoding, np.arange(T), np.arange(T), num_heads))
    close(actual, arrays["bias_paper"])
    close(actual - actual[:, :1, :1], arrays["bias_shifted"], atol=1e-5)


# FIRE


@pytest.mark.parametrize("name", ["fire_h2_T16_L512", "fire_h4_T20_L8"])
def test_fire(name):
    arrays, params = common.golden(name)
    T, num_heads = params["T"], params["heads"]
    encoding = posenc_jax.make(
        "fire",
        num_heads=num_heads,
        hidden=params["mlp_width"],
        init_length=params["init_L"],
        rngs=nnx.Rngs(0),
    )
    close(encoding.c[...], params["c"])
    close(encoding.length_multiplier[...], params["L_multiplier"])
    encoding.inner.kernel[...] = jnp.asarray(arrays["w1"].T, jnp.float32)
    encoding.inner.bias[...] = jnp.asarray(arrays["b1"], jnp.float32)
    encoding.outer.kernel[...] = jnp.asarray(arrays["w2"].T, jnp.float32)
    encoding.outer.bias[...] = jnp.asarray(arrays["b2"], jnp.float32)
    actual = common.bias(encoding, np.arange(T), np.arange(T), num_heads)
    close(np.tril(actual), np.tril(arrays["bias_lower"]), rtol=1e-4, atol=1e-5)
