"""Tests keys and values that are mixed with those before them, beside what every scheme has."""

import common
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_checks import close

import posenc_jax
from posenc_jax.positions import text

B, T = 2, 9
X_BTD = common.normal(0, B, T, common.WIDTH)
Q, K, V = (common.normal(seed, B, T, common.HEADS, common.HEAD_DIM) for seed in (1, 2, 3))


def test_the_other_scheme_sees_keys_and_values_after_the_shift():
    """FoX reads the layer's input too, and has the same gates as without a shift."""
    encoding = common.build("kv_shift", over="fox")
    gates = np.asarray(jax.nn.sigmoid(X_BTD @ encoding.kernel[...]))
    mixed = []
    for x, g in zip((K, V), np.split(gates, 2, axis=-1), strict=True):
        before = np.concatenate([np.zeros_like(x[:, :1]), x[:, :-1]], axis=1)
        mixed.append(g[..., None] * before + (1 - g[..., None]) * x)

    def attend(encoding, k, v):
        tokens = encoding.tokens(text(T)).observed(encoding, jnp.asarray(X_BTD))
        return posenc_jax.attend(encoding, Q, k, v, tokens)

    close(attend(encoding, K, V), attend(encoding.inner, *mixed))


def test_a_key_that_follows_one_not_given_is_no_number():
    encoding = common.build("kv_shift")
    tokens = encoding.tokens(text(T)).observed(encoding, jnp.asarray(X_BTD))
    part = tokens.part(4, T - 4)
    whole = posenc_jax.logits(encoding, Q, K, tokens)
    logits = posenc_jax.logits(encoding, Q, K[:, 4:], tokens.part(0, T), part)
    assert np.isnan(logits[..., 0]).all()
    close(logits[..., 1:], whole[..., 5:])


@pytest.mark.parametrize("name", ["kv_shift", "short_conv", "key_offset"])
def test_the_tokens_before_are_found_once_for_all_layers(name):
    ids, segment_ids = np.ones((B, T), np.int32), np.repeat([[0, 1, 1]], 3, axis=1)

    def sorts(num_layers):
        encoding = common.build(name, num_layers=num_layers)
        model = common.build_model(encoding, num_layers=num_layers)
        program = jax.make_jaxpr(lambda model: model(ids, text(T), segment_ids))(model)
        return str(program).count("name=argsort")

    assert sorts(1) == sorts(2) > 0
