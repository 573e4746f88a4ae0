"""Compares biases by distance, and positions at the input, with other people's code."""

import common
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from golden_checks import close, load

import posenc_jax
from posenc_jax.encodings.bias.kerple import inverse_exponent, inverse_positive
from posenc_jax.positions import text


def nothing(arrays, params):
    return {}


def table(a, p):
    return {"table": a["table"]}


def t5_of_x(a, p):
    return dict(max_distance=p["max_distance"], bidirectional=not p["causal"])


def sandwich(a, p):
    return dict(channels=p["bar_d"], base=p["base"])


def fire(a, p):
    return dict(hidden=p["mlp_width"], init_length=p["init_L"])


def of_fire(a, p):
    weights = {"inner.kernel": a["w1"].T, "inner.bias": a["b1"]}
    return weights | {"outer.kernel": a["w2"].T, "outer.bias": a["b2"]}


def kerple(kind, inverse_p):
    def weights(a, p):
        p, a = (jnp.float32(np.maximum(a[f"{kind}_{key}"], p["eps"] + 1e-7)) for key in "pa")
        return dict(raw_p=inverse_p(p), raw_a=inverse_positive(a))

    return weights


LOG, POWER = kerple("log", inverse_positive), kerple("power", inverse_exponent)
# Golden file, scheme, keywords, parameters, the array, and whether it has no keys ahead of queries.
BIASES = [
    ("alibi_bias_h4_T12", "alibi", nothing, nothing, "mpt_bias_row", False),
    ("alibi_bias_h12_T9", "alibi", nothing, nothing, "mpt_bias_row", False),
    ("xt_alibi_h12", "alibi", nothing, nothing, "bias", False),
    ("t5_bias_h4_T40", "t5", nothing, table, "bias", False),
    ("xt_t5_bias_bidir", "t5", t5_of_x, table, "bias", False),
    ("xt_t5_bias_causal_cache", "t5", t5_of_x, table, "bias", False),
    ("kerple_h4_T12", "kerple_log", nothing, LOG, "log_bias", True),
    ("kerple_h4_T12", "kerple_power", nothing, POWER, "power_bias", True),
    ("sandwich_T20_d32_h4", "sandwich", sandwich, nothing, "bias_paper", False),
    ("fire_h2_T16_L512", "fire", fire, of_fire, "bias_lower", True),
    ("fire_h4_T20_L8", "fire", fire, of_fire, "bias_lower", True),
]


@pytest.mark.parametrize(("golden", "scheme", "keywords", "weights", "key", "lower"), BIASES)
def test_bias(golden, scheme, keywords, weights, key, lower):
    """Queries are the last of the keys; x-transformers multiplies T5's bias by sqrt(d)."""
    arrays, params = common.golden(golden)
    H, S = params["heads"], arrays[key].shape[-1]
    sizes = dict(num_heads=H, model_dim=1, rngs=nnx.Rngs(0))
    encoding = posenc_jax.make(scheme, **sizes, **keywords(arrays, params))
    if scheme == "fire":
        close(encoding.c[...], params["c"])
        close(encoding.length_multiplier[...], params["L_multiplier"])
    load(encoding, weights(arrays, params))
    expected, keys = arrays[key].reshape(H, -1, S), np.arange(S)
    actual = common.bias(encoding, keys[-expected.shape[1] :], keys, H)
    actual = params.get("scale", 1.0) * np.asarray(actual)
    if lower:
        allowed = dict(rtol=1e-4, atol=1e-5 if "fire" in golden else 1e-6)
        close(np.tril(actual), np.tril(expected), **allowed)
    else:
        close(actual, expected)
    if "bias_shifted" in arrays:
        close(actual - actual[:, :1, :1], arrays["bias_shifted"], atol=1e-5)
    if "bias_custom" in arrays:
        custom = common.bias(encoding, arrays["pos_i"], arrays["pos_j"], H)
        close(custom, arrays["bias_custom"])


@pytest.mark.parametrize("num_heads", [1, 2, 4, 8, 12, 16, 20, 32])
def test_alibi_slopes(num_heads):
    arrays, _ = common.golden("alibi_slopes")
    encoding = posenc_jax.make("alibi", num_heads=num_heads)
    slopes = -common.bias(encoding, np.array([1]), np.array([0]), num_heads)[:, 0, 0]
    close(slopes, arrays[f"bloom_H{num_heads}"], rtol=1e-6, atol=0)
    close(slopes, arrays[f"mpt_H{num_heads}"], rtol=1e-6, atol=0)


def test_alibi_is_not_rounded_to_bfloat16():
    arrays, params = common.golden("alibi_falcon_bf16_trap")
    T, num_heads = params["T"], params["heads"]
    encoding = posenc_jax.make("alibi", num_heads=num_heads)
    last_row = np.asarray(common.bias(encoding, np.array([T - 1]), np.arange(T), num_heads))[:, 0]
    wrong = arrays["falcon_bias_row"]
    # What Falcon has is wrong by whole units of a logit.
    assert np.abs(last_row - (wrong - wrong[:, -1:])).max() > 1
    exact = last_row[:, -2:-1].astype(np.float64) * np.arange(T - 1, -1, -1)
    close(last_row, exact, rtol=1e-6)


@pytest.mark.parametrize("name", ["t5_bucket_causal_32_128", "t5_bucket_bidir_32_128"])
def test_t5_buckets(name):
    arrays, params = common.golden(name)
    sizes = dict(num_heads=1, model_dim=1, rngs=nnx.Rngs(0))
    encoding = posenc_jax.make("t5", bidirectional=params["bidirectional"], **sizes)
    load(encoding, {"table": np.arange(params["num_buckets"])[:, None]})
    buckets = common.bias(encoding, np.array([0]), arrays["relative_position"], 1)[0, 0]
    np.testing.assert_array_equal(buckets, arrays["bucket"])


def test_kerple_parameters_stay_in_range():
    """Training takes no parameter out of range; drawn ones are not so near to the ends."""
    raw, distance = jnp.array([-50.0, -1.0, 2.0, 50.0]), np.arange(3)
    encoding = posenc_jax.make("kerple_power", num_heads=4, rngs=nnx.Rngs(0))
    load(encoding, dict(raw_p=raw, raw_a=inverse_positive(jnp.ones(4))))
    at_two = -np.asarray(common.bias(encoding, distance[2:], distance[:1], 4))[:, 0, 0]
    assert (at_two >= 2**0.01 - 1e-6).all() and (at_two <= 2**2 + 1e-6).all()
    close(at_two[[0, 3]], [2**0.01, 4.0])
    drawn = posenc_jax.make("kerple_power", num_heads=1000, rngs=nnx.Rngs(0))
    p = np.asarray(drawn.p_of(drawn.raw_p[...]))
    close([p.min(), p.max()], [0.02, 1.98], rtol=1e-4)


# Positions at the input


@pytest.mark.parametrize(
    ("name", "key", "layout"),
    [
        ("sinusoidal_interleaved_T64_d32", "table", "interleaved"),
        ("sinusoidal_half_T20_d64", "table_unscaled", "half"),
    ],
)
def test_sinusoidal(name, key, layout):
    arrays, _ = common.golden(name)
    T, D = arrays[key].shape
    encoding = posenc_jax.make("sinusoidal", model_dim=D, layout=layout)
    x_BTD = common.normal(0, 1, T, D)
    here = encoding.at(text(T))
    close(here.embed(x_BTD), arrays[key] + np.sqrt(D) * x_BTD[0, None], atol=1e-5)


def test_sinusoidal_of_x_transformers_is_a_scaled_table():
    arrays, _ = common.golden("sinusoidal_half_T20_d64")
    encoding = posenc_jax.make("sinusoidal", model_dim=64, layout="half", token_scale=1.0)
    here = encoding.at(text(20))
    table = here.embed(jnp.zeros((1, 20, 64)))[0]
    close(np.asarray(table) * arrays["scale"], arrays["table_scaled"])
