"""Compares RoPE with mapped positions with other people's code."""

import common
import jax
import numpy as np
import pytest
from golden_checks import by_token, close

import posenc_jax
from posenc_jax.positions import text


def attention(name, scheme, logn=False, **given):
    """Returns the golden arrays, and our attention's weights and output on their inputs."""
    arrays, params = common.golden(name)
    encoding = posenc_jax.make(scheme, head_dim=params["head_dim"], base=params["base"], **given)
    q, k, v = (by_token(arrays[key]).astype(np.float32) for key in ("q", "k", "v"))
    if logn:
        growth = np.log(np.arange(params["T"]) + 1) / np.log(params["training_length"])
        q = q * np.maximum(1, growth).astype(np.float32)[None, :, None, None]
    tokens = encoding.tokens(text(params["T"]))
    weights = common.probabilities(encoding, q, k, tokens)
    out = jax.jit(posenc_jax.attend)(encoding, q, k, v, tokens)
    return arrays, weights, out.reshape(1, params["T"], -1)


@pytest.mark.parametrize(
    ("name", "scheme", "given"),
    [
        ("rerope_w4_T12", "rerope", {"window": 4, "logn": True}),
        ("leaky_rerope_w4_s4_T12", "leaky_rerope", {"window": 4, "factor": 4.0, "logn": True}),
        ("self_extend_G4_w8_T30", "self_extend", {"window": 8, "group_size": 4}),
        ("self_extend_G4_w10_T33_nondiv", "self_extend", {"window": 10, "group_size": 4}),
    ],
)
def test_near_and_far(name, scheme, given):
    arrays, weights, out = attention(name, scheme, **given)
    close(weights, arrays["probs"], rtol=1e-4, atol=1e-6)
    close(out, arrays["out"], rtol=1e-4, atol=1e-5)


def test_dual_chunk():
    """Chunk and local window follow from the training length."""
    arrays, _, out = attention("dca_p32_T60", "dual_chunk", train_length=32)
    close(out, arrays["out"], rtol=1e-4, atol=1e-5)


def test_within_the_window_they_are_rope():
    q, k, v = (common.normal(seed, 1, 8, 2, 16) for seed in range(3))
    outputs = []
    for name in ("rope", "rerope", "leaky_rerope", "self_extend", "dual_chunk", "jet_long"):
        encoding = posenc_jax.make(name, head_dim=16, train_length=64)
        tokens = encoding.tokens(text(8))
        outputs.append(jax.jit(posenc_jax.attend)(encoding, q, k, v, tokens))
    for output in outputs[1:]:
        close(output, outputs[0], rtol=1e-5, atol=1e-5)
