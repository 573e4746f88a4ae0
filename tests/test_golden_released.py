"""Compares with the code of models that were released, through what users call."""

import functools

import common
import jax
import jax.numpy as jnp
import numpy as np
import pytest
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
