"""Schemes in which content and distance meet, against other people's code."""

import dataclasses

import common
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from golden_checks import close

import posenc_jax
from posenc_jax.rotary.positions import text


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
