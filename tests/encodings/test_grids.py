"""Tests schemes of images on two axes and more, and learned positions past their tables."""

import functools

import common
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import posenc_jax
from posenc_jax.attention.blockwise import blockwise
from posenc_jax.positions import text


def cells(rows, columns):
    """Returns row and column, one row after another: int32 ``[1, rows * columns, 2]``."""
    return np.indices((rows, columns), np.int32).reshape(2, -1).T[None]


@jax.jit
def embed(encoding, x_BTD, positions):
    return encoding.embed(x_BTD, encoding.tokens(positions))


# 2D-ALiBi


def test_biases_of_a_grid_in_tiles():
    """Values and gradients agree for two shapes of picture in a batch."""
    encoding, T = common.build("alibi_2d"), 24
    q, k, v = (common.normal(seed, 2, T, common.HEADS, common.HEAD_DIM) for seed in range(3))
    positions = np.concatenate([cells(4, 6), cells(6, 4)])

    def loss(q, k, v, implementation):
        tokens = encoding.tokens(positions)
        output = posenc_jax.attend(encoding, q, k, v, tokens, implementation=implementation)
        return (output**2).sum(), output

    def run(implementation):
        gradient = jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True)
        return jax.jit(lambda *sides: gradient(*sides, implementation))(q, k, v)

    expected = run("dense")
    actual = run(functools.partial(blockwise, block=8))
    for a, b in zip(*map(jax.tree.leaves, (actual, expected)), strict=True):
        common.close(a, b, atol=2e-5)


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
    tokens = encoding.tokens(packed, segment_ids)
    together = encoding.embed(jnp.zeros((1, 45, common.WIDTH)), tokens)
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
        encoding.embed(x_BTD, encoding.tokens(positions, segment_ids))
        for positions in (text(5), np.tile(text(5), (2, 1)))
    )
    np.testing.assert_array_equal(shared, own)


def test_between_rows_there_is_a_gradient_by_positions():
    encoding = common.build("learned", out_of_range="interpolate")
    positions = jnp.array([[0.25, 10.5, 30.75]])
    x_BTD, weights = jnp.zeros((1, 3, common.WIDTH)), common.normal(0, 1, 3, common.WIDTH)
    slope = jax.grad(lambda p: (embed(encoding, x_BTD, p) * weights).sum())(positions)
    rise = np.diff(np.asarray(encoding.table[...]), axis=0)[np.array([0, 10, 30])]
    np.testing.assert_allclose(slope[0], (rise * weights[0]).sum(-1), rtol=1e-4)
