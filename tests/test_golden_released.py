"""Compares with the code of models that were released, through what users call."""

import functools

import common
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from golden_checks import close

import posenc_jax
from posenc_jax.positions import text


@pytest.mark.parametrize("golden", ["sinks_gqa", "sinks_lse_form", "sinks_window"])
def test_sinks(golden):
    """The shares that the sinks take away say what the log-sum-exps are."""
    arrays, params = common.golden(golden)
    q, k, v, sinks = (jnp.asarray(arrays[key], jnp.float32) for key in ("q", "k", "v", "sinks"))
    (B, S, K, _), encoding = k.shape, posenc_jax.Encoding()
    one_hot = jnp.broadcast_to(jnp.eye(S)[None, :, None], (B, S, K, S))
    attend = functools.partial(posenc_jax.attend, encoding, window=params["window"], sinks=sinks)
    both = jnp.concatenate([v, one_hot], axis=-1)
    out = jax.jit(attend)(q, k, both, posenc_jax.Tokens.of(encoding, text(S)))
    out, weights = np.split(np.asarray(out), [v.shape[-1]], axis=-1)
    close(out, arrays["out"], rtol=1e-5, atol=1e-5)
    if "weights" in arrays:
        close(weights.swapaxes(1, 2), arrays["weights"], rtol=1e-5, atol=1e-5)
    taken = np.exp(arrays["sinks"][:, None] - arrays["lse_with_sink"])
    close(1 - weights.sum(-1).swapaxes(1, 2), taken, rtol=1e-5, atol=1e-5)


@jax.jit
def run(encoding, q, k, v, x_BTD, window, scale, sinks):
    """Returns the logits, the weights and the attended sums of a layer of text."""
    tokens = posenc_jax.Tokens.of(encoding, text(q.shape[1])).read(encoding, x_BTD)
    attend = functools.partial(
        posenc_jax.attend, encoding, q, k, q_tokens=tokens, window=window, scale=scale, sinks=sinks
    )
    one_hot = jnp.broadcast_to(jnp.eye(k.shape[1])[None, :, None], (*k.shape[:3], k.shape[1]))
    weights = attend(v_BSKC=one_hot).swapaxes(1, 2)
    return posenc_jax.logits(encoding, q, k, tokens, scale=scale), weights, attend(v_BSKC=v)


INKLING = {"inkling_full": "inkling", "inkling_sliding": "inkling", "inkling2_full": "inkling2"}


@pytest.mark.parametrize(("golden", "name"), INKLING.items())
def test_inkling(golden, name):
    arrays, params = common.golden(golden)
    arrays = {key: jnp.asarray(value, jnp.float32) for key, value in arrays.items()}
    D, H, R = arrays["w_rel"].shape
    sizes = dict(num_heads=H, model_dim=D, head_dim=params["head_dim"], rngs=nnx.Rngs(0))
    clips = {}
    if name == "inkling2":
        clips = dict(clip=params["qk_l2_clip_threshold"])
        clips |= dict(vector_clip=params["rel_l2_clip_threshold"])
    encoding = posenc_jax.make(
        *(name,),
        **(sizes | clips),
        rank=R,
        extent=params["rel_extent"],
        log_floor=params["log_scaling_n_floor"],
        log_scale=params["log_scaling_alpha"],
    )
    encoding.kernel[...] = arrays["w_rel"].reshape(D, H * R)
    encoding.profiles[...] = arrays["profiles"]
    q, k = arrays["q"], arrays["k"]
    if name == "inkling2":
        encoding.query_scale[...], encoding.vector_scale[...] = (
            arrays[key] for key in ("q_scale", "rel_scale")
        )
        q, k = arrays["q_raw"], arrays["k_raw"]
    given = q, k, arrays["v"], arrays["x"], params["window"], params["scale"], arrays.get("sinks")
    logits, weights, out = run(encoding, *given)
    if "logits" in arrays:
        close(logits, arrays["logits"], rtol=1e-5, atol=2e-5)
    close(weights, arrays["weights"], rtol=1e-5, atol=2e-5)
    close(out, arrays["out"], rtol=1e-5, atol=2e-5)


def test_inkling_bias_between_any_positions():
    arrays, params = common.golden("inkling_bias_decode")
    (R, E), H = arrays["profiles"].shape, params["num_heads"]
    sizes = dict(num_heads=H, model_dim=H * R, rank=R, extent=E)
    encoding = posenc_jax.make("inkling", **sizes, rngs=nnx.Rngs(0))
    encoding.profiles[...] = jnp.asarray(arrays["profiles"], jnp.float32)
    encoding.kernel[...] = jnp.eye(H * R)
    vectors_BTD = jnp.asarray(arrays["rel_states"].reshape(2, -1, H * R), jnp.float32)
    queries, keys = (
        posenc_jax.Tokens.of(encoding, arrays[key][None]).read(encoding, x_BTD)
        for key, x_BTD in (("q_positions", vectors_BTD), ("k_positions", jnp.zeros((2, 10, H * R))))
    )
    q, k = jnp.zeros((2, queries.count, H, 1)), jnp.zeros((2, keys.count, H, 1))
    close(posenc_jax.logits(encoding, q, k, queries, keys), arrays["bias"])
