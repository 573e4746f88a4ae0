"""Tests schemes of images on two axes and more, and learned positions past their tables."""

import common
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from posenc_jax.positions import text


def cells(rows, columns):
    """Returns row and column, one row after another: int32 ``[1, rows * columns, 2]``."""
    return np.indices((rows, columns), np.int32).reshape(2, -1).T[None]


@jax.jit
def embed(encoding, x_BTD, positions):
    return encoding.at(positions).embed(x_BTD)


# Learned grids


def test_cells_outside_the_grid():
    positions = np.float32([[[0, 3], [3, 0], [2, 4], [-1, 2], [1, 0.5]]])
    zeros = jnp.zeros((1, 5, common.WIDTH))
    encoding = common.build("learned_2d", grid=(3, 4), out_of_range="error")
    common.refuses("position 3.0", lambda: embed.__wrapped__(encoding, zeros, positions))
    rows = embed(encoding, zeros, positions)[0]
    np.testing.assert_allclose(rows[0], encoding.table[...][0, 3], rtol=0)
    assert np.isnan(rows[1:]).all()
    clamped = embed(common.build("learned_2d", grid=(3, 4), out_of_range="clamp"), zeros, positions)
    nearest = encoding.table[...][np.array([0, 2, 2, 0, 1]), np.array([3, 0, 3, 2, 0])]
    np.testing.assert_allclose(clamped[0], nearest, rtol=0)
    assert common.build("learned_2d", train_length=49).table.shape == (7, 7, common.WIDTH)


def test_packed_images_are_interpolated_by_their_own_sides():
    encoding = common.build("learned_2d", grid=(3, 3), out_of_range="interpolate")
    small, large = cells(3, 3), cells(6, 6)
    packed = np.concatenate([small, large], axis=1)
    segment_ids = np.repeat([0, 1], [9, 36])[None]
    here = encoding.at(packed, segment_ids)
    together = here.embed(jnp.zeros((1, 45, common.WIDTH)))
    apart = [embed(encoding, jnp.zeros((1, x.shape[1], common.WIDTH)), x) for x in (small, large)]
    np.testing.assert_allclose(together, jnp.concatenate(apart, axis=1), atol=1e-6)


# Circulant-STRING


def test_waves_begin_at_the_rates_of_rope():
    """The first pair of each block is the constant and the alternating wave, which stand still."""
    made = common.build("circulant_string", trained=False, block_size=8, base=100.0)
    rates_BP = np.asarray(made.rates())[0, :, 0].reshape(-1, 4)
    moving = rates_BP.shape[0] * 3
    common.close(rates_BP[:, 0], 0.0, atol=1e-6)
    common.close(rates_BP[:, 1:].ravel(), 100.0 ** (-np.arange(moving) / moving))
    basis_CC = made.basis()
    common.close(basis_CC @ basis_CC.T, np.eye(common.HEAD_DIM))


# Learned positions


def test_learned_positions_out_of_range():
    encoding = common.build("learned", out_of_range="error")
    x_BTD = jnp.zeros((1, 5, common.WIDTH))
    positions = jnp.array([[-1.0, 0.0, 31.0, 32.0, 2.5]])
    rows = np.asarray(embed(encoding, x_BTD, positions))[0]
    assert np.isnan(rows[[0, 3, 4]]).all()
    np.testing.assert_allclose(rows[[1, 2]], encoding.table[...][np.array([0, 31])], rtol=0)
    for bad in positions[0, [0, 3, 4]]:
        common.refuses("position", lambda p=bad: embed.__wrapped__(encoding, x_BTD, p[None, None]))


def test_learned_positions_clamped():
    encoding = common.build("learned", out_of_range="clamp")
    x_BTD = jnp.zeros((1, 5, common.WIDTH))
    positions = jnp.array([[-3.0, 0.0, 31.0, 4000.0, 2.7]])
    expected = encoding.table[...][np.array([0, 0, 31, 31, 3])]
    np.testing.assert_allclose(embed(encoding, x_BTD, positions)[0], expected, rtol=0)


@pytest.mark.parametrize("name", ["learned", "learned_2d"])
def test_rows_may_share_positions_and_not_segments(name):
    encoding = common.build(name, out_of_range="interpolate")
    segment_ids = np.array([[0, 0, 0, 1, 1], [0, 0, 0, 0, 1]])
    x_BTD = jnp.zeros((2, 5, common.WIDTH))
    shared, own = (
        encoding.at(positions, segment_ids).embed(x_BTD)
        for positions in (text(5), np.tile(text(5), (2, 1)))
    )
    np.testing.assert_array_equal(shared, own)
