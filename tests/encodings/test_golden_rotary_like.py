"""Compares near relatives of the rotary family with other people's code."""

import common
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from golden_checks import by_token, close

import posenc_jax
from posenc_jax.positions import text


@jax.jit
def rotated(encoding, q_BTHC, k_BTHC):
    """Returns queries and keys at positions 0, 1, 2, ... after ``rotate``, and their products."""
    H = q_BTHC.shape[2]
    tokens = encoding.tokens(text(q_BTHC.shape[1]))
    of_queries, of_keys = (posenc_jax.Side(None, H, H, is_query) for is_query in (True, False))
    q = encoding.rotate(q_BTHC.astype(jnp.float32), tokens, of_queries)
    k = encoding.rotate(k_BTHC.astype(jnp.float32), tokens, of_keys)
    return q, k, jnp.einsum("bthc,bshc->bhts", q, k)


@pytest.mark.parametrize("name", ["xpos_torchscale_d32_T20", "xpos_xt_d32_T16", "xpos_ret_d16_T12"])
def test_xpos(name):
    """Three codes agree; they move both sides' exponents by half the length, for the range."""
    arrays, params = common.golden(name)
    C, T, scale_base = params["head_dim"], params["T"], params["scale_base"]
    arrays = {key: x[:, None] if x.ndim == 3 else x for key, x in arrays.items()}
    encoding = posenc_jax.make("xpos", head_dim=C, scale_base=scale_base)
    q, k, logits = rotated(encoding, by_token(arrays["q"]), by_token(arrays["k"]))
    zeta = (np.arange(0, C, 2) + 0.4 * C) / (1.4 * C)
    if "zeta" in arrays:
        close(zeta, arrays["zeta"])
    moved = np.repeat(zeta ** (T // 2 / scale_base), 2)
    close(q, by_token(arrays["q_rot"]) * moved, rtol=1e-4, atol=1e-5)
    close(k, by_token(arrays["k_rot"]) / moved, rtol=1e-4, atol=1e-5)
    close(logits, arrays["logits_unscaled"], rtol=1e-4, atol=2e-5)


def test_fope():
    arrays, params = common.golden("fope_h2_d32_L64")
    C, H = params["head_dim"], params["heads"]
    arguments = dict(num_heads=H, head_dim=C, train_length=params["train_length"])
    encoding = posenc_jax.make("fope", rngs=nnx.Rngs(0), padding="ones", **arguments)
    cos, _ = encoding.tokens(jnp.ones((1, 1), jnp.int32), length=1).made
    close(np.arccos(cos[0, 0]), arrays["inv_freq_kept"])
    assert encoding.cos_coef.shape == arrays["cos_coef"].shape
    encoding.cos_coef[...] = jnp.asarray(arrays["cos_coef"])
    encoding.sin_coef[...] = jnp.asarray(arrays["sin_coef"])
    q, k, logits = rotated(encoding, by_token(arrays["q"]), by_token(arrays["k"]))
    close(q, by_token(arrays["q_rot"]), rtol=1e-4, atol=1e-5)
    close(k, by_token(arrays["k_rot"]), rtol=1e-4, atol=1e-5)
    close(logits, arrays["logits_unscaled"], rtol=1e-4, atol=1e-4)


def test_fope_matrices_are_drawn_as_released():
    """Matrices lie near the identity, or every n-th row of it if frequencies outnumber pairs."""
    arrays, params = common.golden("fope_h2_d32_L64")
    gain = params["gain"]

    def draw(head_dim, train_length):
        encoding = posenc_jax.make(
            "fope", num_heads=2, head_dim=head_dim, train_length=train_length, rngs=nnx.Rngs(0)
        )
        return np.asarray([encoding.cos_coef[...], encoding.sin_coef[...]])

    theirs = np.asarray([arrays["cos_coef"], arrays["sin_coef"]]) - np.eye(5)
    ours = draw(params["head_dim"], params["train_length"]) - np.eye(5)
    for noise in (theirs, ours):
        close(noise.std(), gain * np.sqrt(2 / (5 * (5 + 2))), rtol=0.15)
        close(noise.mean(), 0, atol=0.02)

    many = draw(head_dim=64, train_length=100_000)  # 32 of 32 pairs kept, 16 may turn
    assert many.shape == (2, 2, 32, 16)
    identity = np.zeros((32, 16))
    identity[np.arange(0, 32, 2), np.arange(16)] = 1
    close((many - identity).std(), gain * np.sqrt(2 / (16 * (32 + 2))), rtol=0.1)


def test_fope_constants_are_not_parameters():
    for learned in (False, True):
        encoding = common.build("fope", learned=learned)
        kinds = nnx.Param if learned else nnx.Variable
        assert type(encoding.cos_coef) is type(encoding.sin_coef) is kinds


def test_pope():
    arrays, params = common.golden("pope_h2_T8_d8")
    H, C = params["heads"], params["head_dim"]
    encoding = posenc_jax.make("pope", num_heads=H, head_dim=C, rngs=nnx.Rngs(0))
    assert not encoding.phase[...].any()
    encoding.phase[...] = jnp.asarray(arrays["learned_bias"][:, 0])
    q, k, logits = rotated(encoding, by_token(arrays["q"]), by_token(arrays["k"]))
    close(q, by_token(arrays["q_polar"]), rtol=1e-4, atol=1e-5)
    close(k, by_token(arrays["k_polar"]), rtol=1e-4, atol=1e-5)
    close(logits, arrays["logits_unscaled"], rtol=1e-4, atol=1e-4)


def test_pope_phases_stay_within_a_turn():
    """Phases start within a turn too."""
    encoding = common.build("pope", trained=False)
    phase = encoding.phase[...]
    assert (phase <= 0).all() and (phase >= -2 * np.pi).all() and np.ptp(phase) > 5
    x = jnp.asarray(common.normal(0, 1, 3, common.HEADS, common.HEAD_DIM))
    ends = []
    for far, edge in ((1.0, 0.0), (-7.0, -2 * np.pi)):
        pair = []
        for value in (far, edge):
            encoding.phase[...] = jnp.full_like(phase, value)
            pair.append(rotated(encoding, x, x)[1])
        close(*pair)
        ends.append(pair[0])
    close(*ends, rtol=1e-4, atol=1e-5)
