"""Compares schemes that read the layer's input with other people's code."""

import dataclasses

import common
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from golden_checks import close

import posenc_jax
from posenc_jax.encodings.gated.sequence import running_sum
from posenc_jax.positions import text


def float32(arrays):
    return {key: jnp.asarray(value, jnp.float32) for key, value in arrays.items()}


def fox(kernel_HD, bias_H):
    """Makes FoX with these gates."""
    H, D = kernel_HD.shape
    encoding = posenc_jax.make("fox", num_heads=H, model_dim=D, rngs=nnx.Rngs(0))
    encoding.gate.kernel[...], encoding.gate.bias[...] = kernel_HD.T, bias_H
    return encoding


@jax.jit
def bias_after(encoding, x_BTD):
    """Returns what ``score`` adds to zero logits, ``[B, H, T, T]``."""
    (B, T, _), H = x_BTD.shape, encoding.gate.bias.shape[0]
    tokens = encoding.tokens(text(T)).observed(encoding, x_BTD)
    nothing = jnp.zeros((B, T, H, 1))
    return posenc_jax.logits(encoding, nothing, nothing, tokens)


@jax.jit
def attend_after(encoding, x_BTD, q, k, v):
    tokens = encoding.tokens(text(q.shape[1])).observed(encoding, x_BTD)
    return posenc_jax.attend(encoding, q, k, v, tokens)


def test_fox_bias():
    arrays, params = common.golden("fox_bias_h2_T9")
    start = posenc_jax.make("fox", num_heads=2, model_dim=8, rngs=nnx.Rngs(0)).gate.bias
    close(start, np.full(2, params["bias_init"]), rtol=0, atol=0)
    encoding = fox(arrays["weight"], arrays["bias_param"])
    actual = bias_after(encoding, jnp.asarray(arrays["x"], jnp.float32))
    close(np.tril(actual), np.tril(arrays["bias"]), rtol=1e-5, atol=1e-6)


def test_fox_attention():
    arrays, _ = common.golden("fox_attn_T14")
    log_gate = arrays["g"].astype(np.float64)
    x_BTD = log_gate - np.log(-np.expm1(log_gate))  # whose log sigmoid it is
    out = attend_after(fox(np.eye(2), 0), jnp.asarray(x_BTD, jnp.float32), *qkv(arrays))
    close(out, arrays["out"], rtol=1e-5, atol=1e-5)


def test_cable_is_fox_with_negated_gates():
    arrays, params = common.golden("cable_h2_T8")
    arrays = float32(arrays)
    H, D = params["heads"], params["n_embd"]
    projected = arrays["x"] @ arrays["qkv_weight"].T + arrays["qkv_bias"][None, None]
    q, k, v = (part.reshape(1, -1, H, D // H) for part in jnp.split(projected, 3, axis=-1))
    encoding = fox(-arrays["h_weight"], -arrays["h_bias"])
    out = attend_after(encoding, arrays["x"], q * (D // H) ** 0.5, k, v)  # its scale is 1
    close(out.reshape(1, -1, D), arrays["out"], rtol=1e-5, atol=1e-5)


def qkv(arrays):
    return (jnp.asarray(arrays[key]) for key in "qkv")


@pytest.mark.parametrize("golden", ["path_T19", "path_fox_gqa_T12"])
@pytest.mark.parametrize("shuffled", [False, True])
def test_path(golden, shuffled):
    arrays, params = common.golden(golden)
    T, H, K, C = (params[key] for key in ("T", "q_heads", "kv_heads", "head_dim"))
    gated = params["forget_gate"]
    sizes = dict(num_heads=H, num_kv_heads=K, head_dim=C, model_dim=H * C, forget_gate=gated)
    encoding = posenc_jax.make("path", rngs=nnx.Rngs(0), **sizes)
    tokens = encoding.tokens(text(T)).observed(encoding, jnp.zeros((1, T, H * C)))
    made = {"w": arrays["w"], "beta": arrays["beta"]}
    if gated:
        made["gate"] = running_sum(jnp.asarray(arrays["g"]))
    tokens = tokens.having(tokens.made | made)

    q, k, v = qkv(arrays)
    order = np.random.default_rng(0).permutation(T) if shuffled else np.arange(T)
    if shuffled:
        cut = jax.tree.map(lambda x: x[:, order], tokens)
        tokens = dataclasses.replace(cut, index=tokens.order()[:, order])
    out = jax.jit(posenc_jax.attend)(encoding, q[:, order], k[:, order], v[:, order], tokens)
    close(out, arrays["out"][:, order], rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_selective_rope():
    arrays, params = common.golden("selective_rope_h2_T9")
    arrays = float32(arrays)
    H, C = params["heads"], params["head_dim"]
    encoding = posenc_jax.make(
        "selective_rope",
        num_heads=H,
        head_dim=C,
        model_dim=H * C,
        rank=params["rank"],
        base=float(params["temp_theta"]),
        temperature=params["temp_max"],
        rngs=nnx.Rngs(0),
    )
    encoding.down_kernel[...] = arrays["w.phi_proj.0.weight"].T
    encoding.up_kernel[...] = arrays["w.phi_proj.1.weight"].T
    encoding.convolution[...] = jnp.zeros_like(encoding.convolution).at[0].set(1)

    tokens = encoding.tokens(text(params["T"])).observed(encoding, arrays["x"])
    for name, is_query in (("q", True), ("k", False)):
        side = posenc_jax.Side(None, H, H, is_query=is_query)
        turned = encoding.rotate(arrays[name], tokens, side)
        close(turned, arrays[f"{name}_rot"], rtol=1e-5, atol=1e-5)
