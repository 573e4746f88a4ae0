"""Tests learned positions past their table."""

import common
import jax
import jax.numpy as jnp
import numpy as np

T = 24


def embed(encoding, x_BTD, positions):
    return encoding.embed(x_BTD, encoding.tokens(positions))


def test_learned_positions_out_of_range():
    encoding = common.build("learned", out_of_range="error")
    x_BTD = jnp.zeros((1, 5, common.WIDTH))
    positions = jnp.array([[-1.0, 0.0, 31.0, 32.0, 2.5]])
    rows = np.asarray(jax.jit(embed)(encoding, x_BTD, positions))[0]
    assert np.isnan(rows[[0, 3, 4]]).all()
    np.testing.assert_allclose(rows[[1, 2]], encoding.table[...][np.array([0, 31])], rtol=0)
    for bad in positions[0, [0, 3, 4]]:
        common.refuses("position", lambda p=bad: embed(encoding, x_BTD[:, :1], p[None, None]))


def test_learned_positions_clamped():
    encoding = common.build("learned", out_of_range="clamp")
    x_BTD = jnp.zeros((1, 5, common.WIDTH))
    positions = jnp.array([[-3.0, 0.0, 31.0, 4000.0, 2.7]])
    expected = encoding.table[...][np.array([0, 0, 31, 31, 3])]
    np.testing.assert_allclose(embed(encoding, x_BTD, positions)[0], expected, rtol=0)


def test_between_rows_there_is_a_gradient_by_positions():
    encoding = common.build("learned", out_of_range="interpolate")
    positions = jnp.array([[0.25, 10.5, 30.75]])
    x_BTD, weights = jnp.zeros((1, 3, common.WIDTH)), common.normal(0, 1, 3, common.WIDTH)
    slope = jax.grad(lambda p: (embed(encoding, x_BTD, p) * weights).sum())(positions)
    rise = np.diff(np.asarray(encoding.table[...]), axis=0)[np.array([0, 10, 30])]
    np.testing.assert_allclose(slope[0], (rise * weights[0]).sum(-1), rtol=1e-4)
