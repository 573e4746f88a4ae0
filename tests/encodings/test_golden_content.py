"""Compares parts of schemes that read content with other people's code.

``test_golden_attention`` compares whole layers.
"""

import common
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from golden_checks import as_published, by_token, close, empty, float32, layer, load

import posenc_jax
from posenc_jax.encodings.bias.kerple import inverse_positive
from posenc_jax.encodings.lib.sequence import running_sum
from posenc_jax.positions import text


@pytest.mark.parametrize(
    ("name", "u", "v"),
    [
        ("transformer_xl_h2_q6", "u", "v"),
        ("transformer_xl_h2_q4_mem3", "u", "v"),
        ("transformer_xl_hf_h2_q5_mem4", "u_r_w_bias", "v_r_r_bias"),
    ],
)
def test_transformer_xl(name, u, v):
    arrays, params = float32(name)
    H, C, T, M = (params[key] for key in ("heads", "head_dim", "q_len", "mem_len"))
    D, S = H * C, M + T
    encoding = empty("transformer_xl", num_heads=H, head_dim=C, model_dim=D)
    w_r = arrays["r_weight"].reshape(H, C, D)
    load(encoding, {"u": arrays[u], "v": arrays[v], "w_r": w_r})

    heads = np.concatenate([arrays["mems"], arrays["w"]]) @ arrays["qkv_weight"].T
    q, k, v = (part.reshape(1, S, H, C) for part in np.split(heads, 3, axis=-1))
    here, there, out, logits = jax.jit(attend_with_memory)(encoding, q[:, M:], k, v)

    if "logits_lower" in arrays:
        close(np.tril(logits, M), np.tril(arrays["logits_lower"], M), rtol=1e-4, atol=1e-5)
    if "attn_probs" in arrays:
        actual = common.probabilities(here, q[:, M:], k, there)[0]
        close(actual, arrays["attn_probs"], rtol=1e-4, atol=1e-5)
    expected = arrays.get("attn_plus_residual", arrays.get("out_plus_residual"))
    close(out.reshape(T, D) + arrays["w"], expected, rtol=1e-4, atol=1e-5)


def attend_with_memory(encoding, q, k, v):
    """Returns the encoding at queries and at keys, whose last are these, output and logits."""
    T, S = q.shape[1], k.shape[1]
    there = encoding.at(text(S))
    here = there.part(S - T, T)
    out = posenc_jax.attend(here, q, there.keys(k, v))
    return here, there, out, posenc_jax.logits(here, q, there.keys(k, k))[0]


@pytest.mark.parametrize("name", ["deberta_v2_bucket_256_512", "deberta_repo_bucket_256_512"])
def test_deberta_buckets(name):
    arrays, params = common.golden(name)
    num_buckets, sizes = params["position_buckets"], dict(num_heads=1, head_dim=1, model_dim=1)
    sizes |= dict(max_distance=params["max_position"], num_buckets=num_buckets)
    rows = empty("deberta", **sizes).row(jnp.asarray(arrays["relative_pos"], jnp.float32))
    expected = np.clip(arrays["bucket"] + num_buckets, 0, 2 * num_buckets - 1)
    np.testing.assert_array_equal(rows, expected)


@pytest.mark.parametrize("bias", ["alibi", "kerple"])
def test_dape(bias):
    arrays, params = common.golden("dape_h3_T8")
    H, T = params["heads"], params["T"]
    given = dict(hidden=params["mlp_width"], bias="alibi" if bias == "alibi" else "kerple_log")
    encoding = empty("dape", num_heads=H, **given)
    inner, outer = arrays[f"{bias}.0.weight"].T, arrays[f"{bias}.2.weight"]
    weights = dict(of_logit=inner[:H], of_bias=inner[H:], out=outer)
    biases = dict(hidden_bias=arrays[f"{bias}.0.bias"], out_bias=arrays[f"{bias}.2.bias"])
    load(encoding, weights | biases)
    if bias == "kerple":
        p, a = (jnp.maximum(arrays[f"kerple_{key}"], 0.01 + 1e-7) for key in "pa")
        load(encoding.bias, dict(raw_p=inverse_positive(p), raw_a=inverse_positive(a)))
    # The products of queries with unit vectors are the logits.
    q = jnp.asarray(by_token(arrays["logits_in"]), jnp.float32)
    k = jnp.broadcast_to(jnp.eye(T)[None, :, None], q.shape)
    actual = posenc_jax.logits(encoding.at(text(T)), q, k, scale=1.0)
    close(np.tril(actual), np.tril(arrays[f"{bias}_out_lower"]), rtol=1e-4, atol=1e-5)


def test_stick_breaking():
    """The code returns the remainder, which the authors' model gives to the query's own value."""
    arrays, params = float32("stickbreaking_h2_T9")
    encoding = posenc_jax.make("stick_breaking")
    q, k, v, out = (by_token(arrays[key]) for key in ("q", "k", "v", "out"))
    here = encoding.at(text(params["T"]))
    remainder = arrays["remainder"].swapaxes(1, 2)[..., None]
    close(posenc_jax.attend(here, q, k, v), out + remainder * v, atol=1e-5)
    weights = np.asarray(common.probabilities(here, q, k))
    close(np.einsum("bhtt->bht", weights), arrays["remainder"], rtol=1e-4)
    # A softmax would hide a number that is added to all logits of a row, and sinks would not.
    logits = posenc_jax.logits(here, q, k)
    close(np.tril(np.exp(logits)), weights, rtol=1e-4)


def test_fox_bias():
    arrays, params = float32("fox_bias_h2_T9")
    x_BTD = arrays["x"]
    B, T, D = x_BTD.shape
    encoding = posenc_jax.make("fox", num_heads=2, model_dim=D, rngs=nnx.Rngs(0))
    close(encoding.gate.bias, np.full(2, params["bias_init"]), rtol=0, atol=0)
    load(encoding, {"gate.kernel": arrays["weight"].T, "gate.bias": arrays["bias_param"]})
    here, zeros = encoding.at(text(T)).see(x_BTD)[0], jnp.zeros((B, T, 2, 1))
    actual = posenc_jax.logits(here, zeros, zeros)
    close(np.tril(actual), np.tril(arrays["bias"]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("golden", ["path_T19", "path_fox_gqa_T12"])
def test_path(golden):
    arrays, params = float32(golden)
    T, H, K, C = (params[key] for key in ("T", "q_heads", "kv_heads", "head_dim"))
    gated = params["forget_gate"]
    sizes = dict(num_heads=H, num_kv_heads=K, head_dim=C, model_dim=H * C, forget_gate=gated)
    made = {"w": arrays["w"], "beta": arrays["beta"]}
    if gated:
        made["gate"] = running_sum(arrays["g"])

    @jax.jit
    def attend(encoding, *qkv):
        here = encoding.at(text(T)).see(jnp.zeros((1, T, H * C)))[0]
        return posenc_jax.attend(common.having(here, here.tokens.made | made), *qkv)

    out = attend(empty("path", **sizes), *(arrays[key] for key in "qkv"))
    close(out, arrays["out"], rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_selective_rope():
    arrays, params = float32("selective_rope_h2_T9")
    H, C = params["heads"], params["head_dim"]
    given = dict(num_heads=H, head_dim=C, model_dim=H * C, rank=params["rank"])
    given |= dict(base=float(params["temp_theta"]), temperature=params["temp_max"])
    encoding = empty("selective_rope", **given)
    kernels = (arrays[f"w.phi_proj.{number}.weight"].T for number in (0, 1))
    load(encoding, dict(zip(("down_kernel", "up_kernel"), kernels, strict=True)))
    encoding.convolution[0] = 1
    results = layer(encoding, arrays["q"], arrays["k"], arrays["k"], arrays["x"])
    for key in ("q_rot", "k_rot"):
        close(results[key], arrays[key], rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("golden", "name"),
    [("grape_m_learned", "grape_m"), ("grape_m_contextual", "grape_m_contextual")],
)
def test_grape_m(golden, name):
    """The learned norm of the authors' code comes after the rotation."""
    arrays, params = float32(golden)
    H, C, T = params["num_heads"], params["head_dim"], arrays["q_raw"].shape[1]
    x_BTD = arrays.get("x", jnp.zeros((len(arrays["q_raw"]), T, 1)))
    sizes = dict(num_heads=H, head_dim=C, model_dim=x_BTD.shape[-1], base=params["base"])
    encoding = posenc_jax.make(name, rngs=nnx.Rngs(0), **sizes)
    close(encoding.logs[...].reshape(-1), arrays["log_freq_init"], rtol=1e-5, atol=1e-5)
    encoding.logs[...] = arrays["log_freq"].reshape(encoding.logs.shape)
    if "x" in arrays:
        close(encoding.bias[...], arrays["b_omega_init"], rtol=1e-5)
        encoding.kernel[...], encoding.bias[...] = arrays["w_omega"], arrays["b_omega"]

    here = encoding.at(text(T)).see(x_BTD)[0]
    results = layer(encoding, arrays["q_raw"], arrays["k_raw"], arrays["v"], x_BTD)

    def normed(key):
        x = results[f"{key}_rot"]
        mean = (x**2).mean(-1, keepdims=True)
        return x * jax.lax.rsqrt(mean + 1e-6) * arrays[f"{key}_norm"][None, None, None]

    q, k = map(normed, "qk")
    scale = params["scale"]
    nope = posenc_jax.Encoding()
    out = posenc_jax.attend(nope.at(text(T)), q, k, arrays["v"], scale=scale)
    as_published(golden, q=q, k=k, out=out)
    logits = scale * np.einsum("bthc,bshc->bhts", q, k)
    close(np.tril(logits), np.tril(arrays["logits"]), rtol=1e-5, atol=5e-5)
    if "phase" in arrays:
        # The slowest pair rotates by less than half a turn in all, clockwise.
        cos, sin = (table[..., -1] for table in here.tokens.made)
        as_published(golden, phase=np.arctan2(-sin, cos) / arrays["freq"][0, -1])


def test_kv_shift():
    """The oracle is of keys; values are mixed by the same code."""
    arrays, params = float32("kv_shift")
    K, D = params["num_heads"], arrays["x"].shape[-1]
    encoding = empty("kv_shift", num_heads=K, model_dim=D, over="nope")
    load(encoding, {"kernel": np.tile(arrays["w_shift"], 2)})
    here = encoding.at(text(arrays["x"].shape[1])).see(arrays["x"])[0]
    side = posenc_jax.Side(None, K, is_query=False)
    for rotate in (encoding.rotate, encoding.rotate_values):
        close(rotate(arrays["k_raw"], here.tokens, side), arrays["k"], rtol=1e-5, atol=1e-6)


def test_dynamic_short_conv():
    """Keys and values are given the same weights, of one module of transformers."""
    arrays, _ = float32("dynamic_short_conv")
    x, k = arrays["x"], arrays["k_raw"]
    (K, C), (W, _) = k.shape[2:], arrays["static_weight"].shape
    sizes = dict(num_kv_heads=K, head_dim=C, model_dim=x.shape[-1], width=W)
    encoding = empty("dynamic_short_conv", **sizes, over="nope")
    kernel = arrays["static_weight"].reshape(W, K, C).swapaxes(0, 1)
    kernels = {"of_keys_kernel": kernel, "of_values_kernel": kernel}
    load(encoding, kernels | {"kernel": np.tile(arrays["weight_proj"].T, 2)})
    side = posenc_jax.Side(None, K, is_query=False)
    packed = arrays["segment_ids"].astype(int)

    @jax.jit
    def mixed(encoding, segment_ids):
        here = encoding.at(text(x.shape[1]), segment_ids).see(x)[0]
        return [
            rotate(k, here.tokens, side) for rotate in (encoding.rotate, encoding.rotate_values)
        ]

    for key, segment_ids in {"k": None, "k_packed": packed}.items():
        for actual in mixed(encoding, segment_ids):
            as_published("dynamic_short_conv", **{key: actual})
