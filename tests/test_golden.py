"""Every scheme against arrays made by other people's code, listed in ``golden/index.json``.

All comparisons go through what users call: ``make``, then ``prepare``, ``rotate``, ``score``,
``embed`` or ``attend``.
"""

import dataclasses
import functools
import os

import common
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import posenc_jax
from posenc_jax.encodings.kerple import inverse_positive
from posenc_jax.rotary.axes import chunked, interleaved
from posenc_jax.rotary.positions import text


def close(actual, expected, rtol=1e-5, atol=1e-6):
    np.testing.assert_allclose(np.asarray(actual, np.float64), expected, rtol=rtol, atol=atol)


@functools.partial(jax.jit, static_argnames="length")
def turn(encoding, positions, length, array_length=None):
    """Cosine and sine, ``[T, channels / 2]``, by which every pair turns.

    Read off by rotating pairs (1, 0); any attention factor is still in them. The length is given
    as a Python int, or as an array in its place.
    """
    length = length if array_length is None else array_length
    pairs, half = encoding.rotary_dim // 2, encoding.layout == "half"
    unit_C = np.repeat([1.0, 0.0], pairs) if half else np.tile([1.0, 0.0], pairs)
    unit_1T1C = jnp.broadcast_to(jnp.float32(unit_C), (1, len(positions), 1, 2 * pairs))
    prepared = encoding.prepare(positions[None], length)
    turned = encoding.rotate(unit_1T1C, prepared, is_query=True)[0, :, 0]
    return jnp.split(turned, 2, axis=-1) if half else (turned[:, 0::2], turned[:, 1::2])


def assert_frequencies(encoding, inv_freq, attention_factor=1.0, length=1, array_length=None):
    """The encoding turns by ``inv_freq`` a token, at position 1 and at many."""
    positions = np.array([1, 0, 3, 64, 200])
    turned = turn(encoding, positions, length, array_length)
    cos, sin = (np.asarray(table, np.float64) for table in turned)
    close(np.arctan2(sin, cos)[0], inv_freq, rtol=1e-5, atol=1e-12)
    close(np.hypot(sin, cos), np.full(cos.shape, attention_factor), rtol=1e-6)
    # The arrays' own float32 rounding grows with the position.
    angles = positions[:, None] * inv_freq.astype(np.float64)
    close(cos, attention_factor * np.cos(angles), rtol=0, atol=2e-3)
    close(sin, attention_factor * np.sin(angles), rtol=0, atol=2e-3)


@jax.jit
def rotated(encoding, x_BTHC, positions):
    tokens = posenc_jax.Tokens.of(encoding, positions)
    return encoding.rotate(x_BTHC.astype(jnp.float32), tokens.prepared, is_query=True)


def by_token(x_BHTC):
    return np.swapaxes(x_BHTC, 1, 2)


# Sinusoidal


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
    close(encoding.embed(x_BTD, text(T)), arrays[key] + np.sqrt(D) * x_BTD[0, None], atol=1e-5)


def test_sinusoidal_of_x_transformers_is_a_scaled_table():
    arrays, _ = common.golden("sinusoidal_half_T20_d64")
    encoding = posenc_jax.make("sinusoidal", model_dim=64, layout="half", token_scale=1.0)
    table = encoding.embed(jnp.zeros((1, 20, 64)), text(20))[0]
    close(np.asarray(table) * arrays["scale"], arrays["table_scaled"])


# Rotary: tables


# What conftest.py turns off.
XLA_TRIES_HARD = {"xla_backend_optimization_level": 3}
if "xla_cpu_use_fusion_emitters" in os.environ["XLA_FLAGS"]:
    XLA_TRIES_HARD["xla_cpu_use_fusion_emitters"] = True


@pytest.mark.parametrize("name", ["rope_default_d64_b10000", "rope_default_d128_b500000"])
@pytest.mark.parametrize("options", [{}, XLA_TRIES_HARD], ids=["quick", "hard"])
def test_rope_angles_to_two_million(name, options):
    """However hard the compiler tries: the method lives on sums that must not be rearranged."""
    arrays, params = common.golden(name)
    encoding = posenc_jax.make("rope", head_dim=params["head_dim"], base=params["base"])
    positions = jnp.asarray(arrays["positions"], jnp.int32)[None]
    prepare = jax.jit(encoding.prepare, compiler_options=options)
    for dtype in (jnp.int32, jnp.float32):
        cos, sin = prepare(positions.astype(dtype), 1)
        close(cos[0, :, 0], arrays["cos_f64_independent"], rtol=0, atol=1e-6)
        close(sin[0, :, 0], arrays["sin_f64_independent"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["rope_default_d64_b10000", "rope_default_d128_b500000"])
def test_rope_frequencies(name):
    arrays, params = common.golden(name)
    encoding = posenc_jax.make("rope", head_dim=params["head_dim"], base=params["base"])
    assert_frequencies(encoding, arrays["inv_freq_f32"])


# Rotary: applied


def test_rope_half():
    arrays, params = common.golden("rope_apply_half_d64")
    encoding = posenc_jax.make("rope", head_dim=params["head_dim"], base=params["base"])
    q, k = by_token(arrays["q"]), by_token(arrays["k"])
    positions = arrays["positions"].astype(np.int32)[None]
    close(rotated(encoding, q, positions), by_token(arrays["q_rot"]), atol=1e-5)
    close(rotated(encoding, k, positions), by_token(arrays["k_rot"]), atol=1e-5)

    logits = arrays["logits_unscaled"] / 8
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    tokens = posenc_jax.Tokens.of(encoding, positions)
    q, k = q.astype(np.float32), k.astype(np.float32)
    actual = common.probabilities(encoding, q, k, tokens, causal=False)
    close(actual, weights / weights.sum(-1, keepdims=True), rtol=1e-4)


@pytest.mark.parametrize(
    "name", ["rope_apply_interleaved_gptj_d64_r64", "rope_apply_complex_llama4_d32"]
)
def test_rope_interleaved(name):
    arrays, params = common.golden(name)
    encoding = posenc_jax.make(
        "rope", head_dim=params["head_dim"], base=params["base"], layout="interleaved"
    )
    positions = text(arrays["q"].shape[1])
    close(rotated(encoding, arrays["q"], positions), arrays["q_rot"], atol=1e-5)
    close(rotated(encoding, arrays["k"], positions), arrays["k_rot"], atol=1e-5)


def test_rope_partial():
    arrays, params = common.golden("rope_apply_partial_neox_pct25")
    encoding = posenc_jax.make(
        "rope", head_dim=params["head_dim"], base=params["base"], rotary_dim=params["rotary_dim"]
    )
    positions = arrays["positions"].astype(np.int32)[None]
    for key in ("q", "k"):
        actual = rotated(encoding, by_token(arrays[key]), positions)
        close(actual, by_token(arrays[f"{key}_rot"]), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "scheme", "own"),
    [
        ("rope_ret_plain_d32", "rope", {}),
        ("rope_ret_pi4_d32", "pi", {"factor": 4.0}),
        ("rope_ret_ntk8_d64", "ntk", {"factor": 8.0}),
    ],
)
def test_rotary_embedding_torch(name, scheme, own):
    arrays, params = common.golden(name)
    encoding = posenc_jax.make(
        scheme, head_dim=params["dim"], base=params["theta"], layout="interleaved", **own
    )
    q = by_token(arrays["q"])
    close(rotated(encoding, q, text(params["T"])), by_token(arrays["q_rot"]), atol=1e-5)


# Rotary: the frequency dial


def test_pi_frequencies():
    arrays, params = common.golden("rope_linear_d64_s4")
    encoding = posenc_jax.make("pi", head_dim=params["head_dim"], factor=4.0)
    assert_frequencies(encoding, arrays["inv_freq"])


def test_ntk_frequencies():
    arrays, params = common.golden("ntk_static_d128_a8")
    encoding = posenc_jax.make("ntk", head_dim=params["dim"], factor=float(params["alpha"]))
    assert_frequencies(encoding, arrays["inv_freq"])


@pytest.mark.parametrize("name", ["rope_dynamic_d64_s2", "rope_dynamic_d128_s1"])
@pytest.mark.parametrize("as_array", [False, True])
def test_dynamic_ntk_of_hugging_face(name, as_array):
    arrays, params = common.golden(name)
    encoding = posenc_jax.make(
        "dynamic_ntk",
        head_dim=params["head_dim"],
        train_length=params["max_position_embeddings"],
        factor=params["rope_parameters"]["factor"],
    )
    for length in params["seq_lens"]:
        key = "inv_freq" if length is None else f"inv_freq_seq{length}"
        length = 1 if length is None else length
        array = jnp.full((1, 1), length) if as_array else None
        static = None if as_array else length
        assert_frequencies(encoding, arrays[key], length=static, array_length=array)


def test_dynamic_ntk_of_the_yarn_repository():
    """Here the length is not given, but found from the positions."""
    arrays, params = common.golden("dynamic_ntk_repo_d64_a1")
    dim = params["dim"]
    encoding = posenc_jax.make(
        "dynamic_ntk", head_dim=dim, train_length=params["max_position"], factor=1.0
    )
    for length in params["lens"]:
        assert_frequencies(encoding, arrays[f"inv_freq_len{length}"], length=length)
        ahead = jnp.float32(np.repeat([1.0, 0.0], dim // 2))
        last = rotated(encoding, jnp.broadcast_to(ahead, (1, length, 1, dim)), text(length))[
            0, -1, 0
        ]
        close(last[: dim // 2], arrays[f"cos_last_len{length}"][: dim // 2], atol=1e-4)
        close(last[dim // 2 :], arrays[f"sin_last_len{length}"][: dim // 2], atol=1e-4)


YARN = {
    "rope_yarn_d64_s4_L512": {},
    "rope_yarn_llama2_s16": {},
    "rope_yarn_d64_s8_attnfactor": {"attention_factor": 1.0},
    "rope_yarn_dsv3_s40_mscale": {"mscale": 1.0, "mscale_all_dim": 1.0},
    "rope_yarn_d64_s32_notrunc_gptoss": {"truncate": False},
    "rope_yarn_d32_b500_L16384_highclamp": {},
    # Llama-3's rule is the "turns" ramp between 1 and 4 turns, without a temperature.
    "rope_llama3_8b": {
        "ramp": "turns",
        "beta_slow": 1.0,
        "beta_fast": 4.0,
        "attention_factor": 1.0,
    },
}


@pytest.mark.parametrize("name", YARN)
def test_yarn_frequencies(name):
    arrays, params = common.golden(name)
    rope = params["rope_parameters"]
    encoding = posenc_jax.make(
        "yarn",
        head_dim=params["head_dim"],
        base=rope["rope_theta"],
        train_length=rope["original_max_position_embeddings"],
        factor=rope["factor"],
        **YARN[name],
    )
    factor = float(arrays["attention_factor"][0])
    assert_frequencies(encoding, arrays["inv_freq"], factor)


@pytest.mark.parametrize("case", range(6))
def test_yarn_of_qwen3(case):
    arrays, every = common.golden("yarn_qwen3")
    params = dict(every[case])
    channels, base, train_length = (params.pop(key) for key in ("D", "base", "orig"))
    encoding = posenc_jax.make(
        "yarn", head_dim=channels, base=base, train_length=train_length, **params
    )
    factor = float(arrays[f"attention_factor_{case}"])
    assert_frequencies(encoding, arrays[f"inv_freq_{case}"], factor)


@pytest.mark.parametrize("name", ["yarn_repo_d64_s8_L256", "yarn_repo_d128_s16_L4096"])
def test_yarn_of_its_repository(name):
    arrays, params = common.golden(name)
    encoding = posenc_jax.make(
        "yarn",
        head_dim=params["dim"],
        train_length=params["original"],
        factor=float(params["scale"]),
    )
    assert_frequencies(encoding, arrays["inv_freq"], float(arrays["mscale"]))
    cos, sin = turn(encoding, np.arange(64), 64)
    close(cos, arrays["cos"][:, : params["dim"] // 2], atol=1e-5)
    close(sin, arrays["sin"][:, : params["dim"] // 2], atol=1e-5)


def test_yarn_tables():
    arrays, params = common.golden("rope_yarn_tables_d32_s4")
    encoding = posenc_jax.make("yarn", head_dim=params["head_dim"], train_length=512, factor=4.0)
    cos, sin = turn(encoding, arrays["positions"].astype(np.int32), 1)
    near = arrays["positions"] < 4096
    close(cos[near], arrays["cos"][near, :16], rtol=0, atol=3e-4)
    close(sin[near], arrays["sin"][near, :16], rtol=0, atol=3e-4)


def test_yarn_logits_carry_the_temperature_squared():
    arrays, params = common.golden("rope_logits_yarn_d32_s8")
    encoding = posenc_jax.make("yarn", head_dim=32, train_length=256, factor=8.0)
    positions = text(params["T"])
    q = rotated(encoding, by_token(arrays["q"]), positions)
    k = rotated(encoding, by_token(arrays["k"]), positions)
    close(q, by_token(arrays["q_rot"]), atol=1e-5)
    logits = jnp.einsum("bthc,bshc->bhts", q, k) / jnp.sqrt(params["head_dim"])
    close(logits, arrays["logits_scaled"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", range(8))
def test_hope_frequencies(case):
    arrays, _ = common.golden("hope_highfreq")
    channels, base, train_length = arrays["combos_D_base_L"][case]
    encoding = posenc_jax.make(
        "hope", head_dim=int(channels), base=float(base), train_length=int(train_length)
    )
    assert_frequencies(encoding, arrays[f"inv_freq_{case}"])
    _, sin = turn(encoding, np.array([1]), 1)
    assert np.count_nonzero(sin) == arrays["kept_pairs"][case]


def test_hope_applied():
    arrays, _ = common.golden("hope_highfreq")
    channels, base, train_length = arrays["combos_D_base_L"][int(arrays["example_index"])]
    encoding = posenc_jax.make(
        "hope", head_dim=int(channels), base=float(base), train_length=int(train_length)
    )
    positions = arrays["positions"].astype(np.int32)[None]
    q, k = (rotated(encoding, arrays[key][None, :, None], positions) for key in ("q", "k"))
    close(q[0, :, 0], arrays["q_rot"], atol=1e-3)
    close(k[0, :, 0], arrays["k_rot"], atol=1e-3)
    logits = jnp.einsum("bthc,bshc->ts", q, k) / np.sqrt(channels)
    close(logits, arrays["logits"], atol=1e-3)


@pytest.mark.parametrize("case", range(3))
def test_p_rope_frequencies(case):
    arrays, every = common.golden("p_rope")
    params = every[case]
    encoding = posenc_jax.make(
        "p_rope",
        head_dim=params["head_dim"],
        base=params["base"],
        fraction=params["p"],
        factor=params["factor"],
    )
    assert_frequencies(encoding, arrays[f"inv_freq_{case}"])


@pytest.mark.parametrize("name", ["rope_proportional_d128_p25", "rope_proportional_d64_p75"])
def test_p_rope_of_hugging_face(name):
    arrays, params = common.golden(name)
    rope = params["rope_parameters"]
    encoding = posenc_jax.make(
        "p_rope",
        head_dim=params["head_dim"],
        base=rope["rope_theta"],
        fraction=rope["partial_rotary_factor"],
    )
    assert_frequencies(encoding, arrays["inv_freq"])


# Rotary: the axes dial


@pytest.mark.parametrize(
    ("name", "allocate"),
    [
        ("mrope_chunked_small", chunked),
        ("mrope_interleaved_small", interleaved),
        ("mrope_interleaved_partial", interleaved),
        ("mrope_interleaved_yarn", interleaved),
    ],
)
def test_mrope(name, allocate):
    arrays, params = common.golden(name)
    own = {}
    if "partial_rotary_factor" in params:
        own["rotary_dim"] = int(params["partial_rotary_factor"] * params["head_dim"])
    if "factor" in params:
        own["train_length"] = params["original_max_position_embeddings"]
        own["factor"] = params["factor"]
    encoding = posenc_jax.make(
        params.get("rope_type", "rope"),
        head_dim=params["head_dim"],
        base=params["rope_theta"],
        axes=allocate(tuple(params["mrope_section"])),
        **own,
    )
    positions = arrays["position_ids"].astype(np.int32)
    for key in ("q", "k"):
        actual = rotated(encoding, by_token(arrays[key]), positions)
        close(actual, by_token(arrays[f"{key}_rot"]), atol=3e-4)


# ALiBi


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
    tokens = posenc_jax.Tokens.of(encoding, text(T))
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
    tokens = posenc_jax.Tokens.of(encoding, text(T))
    q, k = (by_token(arrays[key]).astype(np.float32) for key in ("q", "k"))
    causal = np.allclose(np.triu(arrays["probs"], 1), 0)
    actual = common.probabilities(encoding, q, k, tokens, scale=1.0, causal=causal)
    close(actual, arrays["probs"], rtol=1e-4)


@pytest.mark.parametrize("name", ["xt_t5_bias_bidir", "xt_t5_bias_causal_cache"])
def test_t5_of_x_transformers(name):
    """Its queries are the last of the keys, and its bias is multiplied by sqrt(d)."""
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


def test_kerple_log():
    arrays, params = common.golden("kerple_h4_T12")
    T, num_heads = params["T"], params["heads"]
    encoding = posenc_jax.make("kerple_log", num_heads=num_heads, rngs=nnx.Rngs(0))
    for raw, key in ((encoding.raw_p, "log_p"), (encoding.raw_a, "log_a")):
        clamped = np.maximum(arrays[key], params["eps"] + 1e-7)
        raw[...] = inverse_positive(jnp.asarray(clamped, jnp.float32))
    actual = common.bias(encoding, np.arange(T), np.arange(T), num_heads)
    close(np.tril(actual), np.tril(arrays["log_bias"][0]), rtol=1e-4)


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


# Transformer-XL


@pytest.mark.parametrize(
    ("name", "u", "v"),
    [
        ("transformer_xl_h2_q6", "u", "v"),
        ("transformer_xl_h2_q4_mem3", "u", "v"),
        ("transformer_xl_hf_h2_q5_mem4", "u_r_w_bias", "v_r_r_bias"),
    ],
)
def test_transformer_xl(name, u, v):
    arrays, params = common.golden(name)
    arrays = {key: value.astype(np.float32) for key, value in arrays.items()}
    H, C, T, M = (params[key] for key in ("heads", "head_dim", "q_len", "mem_len"))
    D, S = H * C, M + T
    encoding = posenc_jax.make(
        "transformer_xl", num_heads=H, head_dim=C, model_dim=D, rngs=nnx.Rngs(0)
    )
    encoding.u[...], encoding.v[...] = jnp.asarray(arrays[u]), jnp.asarray(arrays[v])
    encoding.w_r[...] = jnp.asarray(arrays["r_weight"]).reshape(H, C, D)

    heads = np.concatenate([arrays["mems"], arrays["w"]]) @ arrays["qkv_weight"].T
    q, k, v = (part.reshape(1, S, H, C) for part in np.split(heads, 3, axis=-1))
    q_tokens, k_tokens, out, logits = jax.jit(attend_with_memory)(encoding, q[:, M:], k, v)

    if "logits_lower" in arrays:
        close(np.tril(logits, M), np.tril(arrays["logits_lower"], M), rtol=1e-4, atol=1e-5)
    if "attn_probs" in arrays:
        actual = common.probabilities(encoding, q[:, M:], k, q_tokens, k_tokens)[0]
        close(actual, arrays["attn_probs"], rtol=1e-4, atol=1e-5)
    expected = arrays.get("attn_plus_residual", arrays.get("out_plus_residual"))
    close(out.reshape(T, D) + arrays["w"], expected, rtol=1e-4, atol=1e-5)


def attend_with_memory(encoding, q, k, v):
    """Attention whose last keys are the queries' own tokens, and its scaled logits."""
    (_, T, _, C), S = q.shape, k.shape[1]
    k_tokens = posenc_jax.Tokens.of(encoding, text(S))
    q_tokens = posenc_jax.Tokens.of(encoding, text(T, start=S - T))
    q_tokens = dataclasses.replace(q_tokens, index=q_tokens.order() + S - T)
    wide_q = encoding.rotate(q, q_tokens.prepared, is_query=True)
    wide_k = encoding.rotate(k, k_tokens.prepared, is_query=False)
    logits = jnp.einsum("bthc,bshc->hts", wide_q, wide_k) / jnp.sqrt(C)
    return q_tokens, k_tokens, posenc_jax.attend(encoding, q, k, v, q_tokens, k_tokens), logits


# The files themselves


def test_every_golden_array_is_listed_and_used():
    files = {path.stem for path in common.GOLDEN.glob("*.npz")}
    assert files == set(common.INDEX)
    source = (common.GOLDEN.parent / "test_golden.py").read_text()
    assert not [name for name in files if f'"{name}"' not in source]
