"""Compares biases by distance, and positions at the input, with other people's code."""

import common
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from golden_checks import close, empty, load

import posenc_jax
from posenc_jax.encodings.bias.alibi import alibi_slopes
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
    weights |= {"c": p["c"], "length_multiplier": p["L_multiplier"]}
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
    encoding = empty(scheme, num_heads=H, model_dim=1, **keywords(arrays, params))
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


def test_alibi_slopes():
    arrays, _ = common.golden("alibi_slopes")
    for num_heads in (1, 2, 4, 8, 12, 16, 20, 32):
        for code in ("bloom", "mpt"):
            close(alibi_slopes(num_heads), arrays[f"{code}_H{num_heads}"], rtol=1e-6, atol=0)


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
    encoding = empty("t5", bidirectional=params["bidirectional"], num_heads=1, model_dim=1)
    load(encoding, {"table": np.arange(params["num_buckets"])[:, None]})
    buckets = common.bias(encoding, np.array([0]), arrays["relative_position"], 1)[0, 0]
    np.testing.assert_array_equal(buckets, arrays["bucket"])


def test_powers_of_kerple_are_not_drawn_near_the_ends_of_their_range():
    drawn = posenc_jax.make("kerple_power", num_heads=1000, rngs=nnx.Rngs(0))
    p = np.asarray(drawn.p_of(drawn.raw_p[...]))
    close([p.min(), p.max()], [0.02, 1.98], rtol=1e-4)


# Positions at the input


@pytest.mark.parametrize(
    ("name", "key", "layout", "token_scale"),
    [
        ("sinusoidal_interleaved_T64_d32", "table", "interleaved", None),
        ("sinusoidal_half_T20_d64", "table_unscaled", "half", None),
        ("sinusoidal_half_T20_d64", "table_scaled", "half", 1.0),
    ],
)
def test_sinusoidal(name, key, layout, token_scale):
    """The scale of x-transformers' table is one of the tokens', the other way around."""
    arrays, _ = common.golden(name)
    T, D = arrays[key].shape
    table = arrays[key] / (arrays["scale"] if key == "table_scaled" else 1)
    encoding = posenc_jax.make("sinusoidal", model_dim=D, layout=layout, token_scale=token_scale)
    x_BTD = common.normal(0, 1, T, D)
    embedded = encoding.at(text(T)).embed(x_BTD)
    close(embedded, table + (token_scale or np.sqrt(D)) * x_BTD[0, None], atol=1e-5)
