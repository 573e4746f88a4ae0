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
def embed(encoding, x_BTD, positions, segment_ids=None):
    return encoding.at(positions, segment_ids).embed(x_BTD)


# Learned positions and grids


TABLES = {
    "learned": ({}, [[-1.0], [0.0], [31.0], [32.0], [2.7]]),
    "learned_2d": ({"grid": (3, 4)}, [[-1, 2], [0, 3], [2, 0], [3, 0], [1, 0.7]]),
}


@pytest.mark.parametrize("name", TABLES)
def test_positions_outside_a_table(name):
    """They are refused, or NaN where their values are not known; or the nearest place is taken."""
    grid, positions = TABLES[name]
    places_BTA = np.float32(positions)[None]
    given = places_BTA if name == "learned_2d" else places_BTA[..., 0]
    zeros = jnp.zeros((1, 5, common.WIDTH))
    strict, clamped = (common.build(name, out_of_range=way, **grid) for way in ("error", "clamp"))
    for wrong in (0, 3, 4):
        one = given[:, [wrong]]
        common.refuses("position", lambda one=one: embed.__wrapped__(strict, zeros[:, :1], one))
    last = np.array(strict.table.shape[:-1]) - 1
    nearest = np.clip(np.rint(places_BTA[0]), 0, last).astype(int)
    rows = np.asarray(embed(strict, zeros, given))[0]
    assert np.isnan(rows[[0, 3, 4]]).all()
    expected = clamped.table[...][tuple(nearest.T)]
    np.testing.assert_array_equal(rows[1:3], expected[1:3])
    np.testing.assert_array_equal(embed(clamped, zeros, given)[0], expected)


def test_packed_images_are_interpolated_by_their_own_sides():
    encoding = common.build("learned_2d", grid=(3, 3), out_of_range="interpolate")
    small, large = cells(3, 3), cells(6, 6)
    packed = np.concatenate([small, large], axis=1)
    segment_ids = np.repeat([0, 1], [9, 36])[None]
    together = embed(encoding, jnp.zeros((1, 45, common.WIDTH)), packed, segment_ids)
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


@pytest.mark.parametrize("name", ["learned", "learned_2d"])
def test_rows_may_share_positions_and_not_segments(name):
    encoding = common.build(name, out_of_range="interpolate")
    segment_ids = np.array([[0, 0, 0, 1, 1], [0, 0, 0, 0, 1]])
    x_BTD = jnp.zeros((2, 5, common.WIDTH))
    shared, own = (
        embed(encoding, x_BTD, positions, segment_ids)
        for positions in (text(5), np.tile(text(5), (2, 1)))
    )
    np.testing.assert_array_equal(shared, own)
