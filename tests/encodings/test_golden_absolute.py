"""Compares positions at the input with other people's code."""

import common
import jax.numpy as jnp
import numpy as np
import pytest
from golden_checks import close

import posenc_jax
from posenc_jax.positions import text


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
    tokens = encoding.tokens(text(T))
    close(encoding.embed(x_BTD, tokens), arrays[key] + np.sqrt(D) * x_BTD[0, None], atol=1e-5)


def test_sinusoidal_of_x_transformers_is_a_scaled_table():
    arrays, _ = common.golden("sinusoidal_half_T20_d64")
    encoding = posenc_jax.make("sinusoidal", model_dim=64, layout="half", token_scale=1.0)
    tokens = encoding.tokens(text(20))
    table = encoding.embed(jnp.zeros((1, 20, 64)), tokens)[0]
    close(np.asarray(table) * arrays["scale"], arrays["table_scaled"])
