"""Learned positions past their table."""

import common
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from posenc_jax.rotary.positions import text

T = 24


def test_learned_positions_out_of_range_eagerly():
    encoding = common.build("learned", out_of_range="error")
    x_BTD = jnp.asarray(common.normal(0, 2, T, common.WIDTH))
    np.testing.assert_allclose(
        encoding.embed(x_BTD, text(T)), x_BTD + encoding.table[...][None, :T]
    )
    for bad in (text(T, start=common.TRAIN_LENGTH - T + 1), text(T, start=-1), text(T) + 0.5):
        with pytest.raises(ValueError, match="is not a row of the learned table of 32 positions"):
            encoding.embed(x_BTD, bad)


def test_learned_positions_out_of_range_compiled():
    encoding = common.build("learned", out_of_range="error")
    x_BTD = jnp.zeros((1, 5, common.WIDTH))
    positions = jnp.array([[-1.0, 0.0, 31.0, 32.0, 2.5]])
    rows = np.asarray(jax.jit(lambda e, x, p: e.embed(x, p))(encoding, x_BTD, positions))[0]
    assert np.isnan(rows[[0, 3, 4]]).all()
    np.testing.assert_allclose(rows[[1, 2]], encoding.table[...][np.array([0, 31])], rtol=0)


def test_learned_positions_clamped():
    encoding = common.build("learned", out_of_range="clamp")
    x_BTD = jnp.zeros((1, 5, common.WIDTH))
    positions = jnp.array([[-3.0, 0.0, 31.0, 4000.0, 2.7]])
    expected = encoding.table[...][np.array([0, 0, 31, 31, 3])]
    np.testing.assert_allclose(encoding.embed(x_BTD, positions)[0], expected, rtol=0)
