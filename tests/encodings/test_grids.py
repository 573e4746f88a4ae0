"""Tests schemes of images on two axes and more; the registry's tests see them on text."""

import contextlib
import functools

import common
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import schemes
from jax.sharding import AxisType
from schemes.equations import reference_attention
from scipy.ndimage import zoom

import posenc_jax
from posenc_jax.attention.blockwise import blockwise
from posenc_jax.attention.ring import ring
from posenc_jax.model.cache import Cache
from posenc_jax.positions import text

GRIDS = ["axial_rope", "sinusoidal_2d", "learned_2d", "alibi_2d"]
each_grid = pytest.mark.parametrize("name", GRIDS)


def cells(rows, columns):
    """Returns row and column, one row after another: int32 ``[1, rows * columns, 2]``."""
    return np.indices((rows, columns), np.int32).reshape(2, -1).T[None]


@jax.jit
def embed(encoding, x_BTD, positions):
    return encoding.embed(x_BTD, encoding.tokens(positions))


CASES = [(name, i) for name in GRIDS for i in range(len(schemes.ALL[name].settings))]


@pytest.mark.parametrize(("name", "setting"), CASES)
def test_attention_is_the_equation(name, setting):
    """Each axis has an order of its own."""
    scheme = schemes.ALL[name]
    own = scheme.settings[setting]
    num_heads, num_axes = own.get("num_heads", common.HEADS), own.get("num_axes", 2)
    num_axes = len(own["grid"]) if "grid" in own else num_axes
    encoding = common.build(name, head_dim=16, **own)
    rng, (B, T) = np.random.default_rng(setting), (2, 20)
    positions = rng.integers(0, 9, (B, T, num_axes)).astype(np.int32)
    if setting and not scheme.whole_positions_only:
        positions = positions.astype(np.float32) * np.float32(0.75) - 3
    x_BTD = 0.5 * common.normal(setting, B, T, common.WIDTH)
    projections = common.projections(num_heads, 16)
    actual = common.attention(encoding, x_BTD, positions, weights=projections)
    expected = reference_attention(
        scheme.equations,
        x_BTD.astype(np.float64),
        positions.astype(np.float64),
        own,
        common.parameters_float64(encoding),
        [w.astype(np.float64) for w in projections],
    )
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=2e-5)
    # Every axis shows.
    for axis in range(num_axes):
        other = positions.copy()
        other[..., axis] = other[:, ::-1, axis]
        changed = common.attention(encoding, x_BTD, other, weights=projections)
        assert np.abs(changed - expected).max() > 1e-2


@each_grid
def test_text_has_the_same_position_on_every_axis(name):
    encoding = common.build(name)
    x_BTD = 0.5 * common.normal(0, 2, 5, common.WIDTH)
    output = common.attention(encoding, x_BTD, text(5))
    if name == "alibi_2d":
        # On two axes it is sqrt(2) times as far.
        encoding = common.build(name, slope_scale=2**-0.5)
    np.testing.assert_allclose(
        common.attention(encoding, x_BTD, np.stack([text(5)] * 2, axis=-1)), output, atol=1e-6
    )


@pytest.mark.parametrize(("name", "of_text"), [("axial_rope", "rope"), ("alibi_2d", "alibi")])
def test_text_has_the_encoding_of_text(name, of_text):
    x_BTD = 0.5 * common.normal(0, 2, 9, common.WIDTH)
    keywords = {"base": 100.0} if of_text == "rope" else {}
    actual, expected = (
        common.attention(common.build(each, **keywords), x_BTD, text(9)) for each in (name, of_text)
    )
    np.testing.assert_array_equal(actual, expected)


@each_grid
def test_decoding(name):
    """A picture and then text on both axes are read token by token."""
    T = 10
    model = common.build_model(name)
    positions = np.concatenate([cells(2, 3), np.stack([text(4, start=3)] * 2, axis=-1)], axis=1)
    token_ids = np.arange(T, dtype=np.int32)[None]
    cache, outputs = Cache.empty(model, 1, T, axes=2), []
    step = jax.jit(lambda model, *given: model.extend(*given))
    for t in range(T):
        now = slice(t, t + 1)
        x_BTD, cache = step(model, token_ids[:, now], cache, positions[:, now])
        outputs.append(model.unembed(x_BTD))
    expected = common.forward(model, token_ids, positions)
    np.testing.assert_allclose(jnp.concatenate(outputs, axis=1), expected, atol=1e-4)


@each_grid
def test_number_of_axes_must_fit(name):
    encoding = common.build(name)
    positions, x_BTD = np.zeros((1, 6, 1), np.int32), jnp.zeros((1, 6, common.WIDTH))
    if name == "alibi_2d":
        tokens = [encoding.tokens(p) for p in (cells(2, 3), text(6))]
        q = jnp.zeros((1, 6, common.HEADS, common.HEAD_DIM))
        with pytest.raises(ValueError, match="must have the same position axes"):
            posenc_jax.logits(encoding, q, q, *tokens)
    elif name == "axial_rope":
        with pytest.raises(ValueError, match=r"needs positions \[B, T, A\] with A > 1"):
            encoding.tokens(positions)
    else:
        with pytest.raises(ValueError, match=r"has 2 position axes: pass \[B, T, 2\]"):
            embed(encoding, x_BTD, positions)


# 2D-ALiBi


IMPLEMENTATIONS = {
    "blockwise": functools.partial(blockwise, block=8),
    "pallas": "pallas",
    "ring": functools.partial(ring, block=8),
}


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
def test_biases_of_a_grid_in_tiles(name):
    """Values and gradients agree for two shapes of picture in a batch."""
    encoding, T = common.build("alibi_2d"), 24
    q, k, v = (common.normal(seed, 2, T, common.HEADS, common.HEAD_DIM) for seed in range(3))
    positions = np.concatenate([cells(4, 6), cells(6, 4)])

    def loss(q, k, v, implementation):
        tokens = encoding.tokens(positions)
        output = posenc_jax.attend(encoding, q, k, v, tokens, implementation=implementation)
        return (output**2).sum(), output

    def run(implementation):
        each = jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True)
        return jax.jit(lambda *sides: each(*sides, implementation))(q, k, v)

    expected = run("dense")
    mesh = jax.make_mesh((2,), ("context",), (AxisType.Auto,), devices=jax.devices()[:2])
    with jax.set_mesh(mesh) if name == "ring" else contextlib.nullcontext():
        actual = run(IMPLEMENTATIONS[name])
    for a, b in zip(*map(jax.tree.leaves, (actual, expected)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-5)


def test_distance_has_a_gradient_at_zero():
    encoding = common.build("alibi_2d")

    def total(positions):
        q = jnp.zeros((1, 4, common.HEADS, common.HEAD_DIM))
        return posenc_jax.logits(encoding, q, q, encoding.tokens(positions)).sum()

    positions = cells(2, 2).astype(np.float32)
    gradient = jax.grad(total)(positions)
    # A corner is pushed away from three others: the nearer ones by one unit each.
    slopes = (2.0 ** (-2 * np.arange(1, 5))).sum()
    expected = slopes * 2 * (1 + 2**-0.5) * np.sign(0.5 - positions)
    np.testing.assert_allclose(gradient, expected, rtol=1e-5)


# Learned grids


def test_interpolation_is_that_of_vit():
    encoding = common.build("learned_2d", grid=(3, 4), out_of_range="interpolate")
    table = np.asarray(encoding.table[...])
    resized = zoom(table, (2, 2, 1), order=1)
    zeros = jnp.zeros((1, 48, common.WIDTH))
    actual = embed(encoding, zeros, cells(6, 8))
    np.testing.assert_allclose(actual[0], resized.reshape(48, -1), atol=1e-6)
    # A smaller picture is not stretched.
    corner = embed(encoding, zeros[:, :6], cells(2, 3))
    np.testing.assert_allclose(corner[0], table[:2, :3].reshape(6, -1), rtol=0)


def test_cells_outside_the_grid():
    positions = np.float32([[[0, 3], [3, 0], [2, 4], [-1, 2], [1, 0.5]]])
    zeros = jnp.zeros((1, 5, common.WIDTH))
    encoding = common.build("learned_2d", grid=(3, 4), out_of_range="error")
    with pytest.raises(ValueError, match=r"position 3\.0 is not a row of .* 3 positions"):
        embed.__wrapped__(encoding, zeros, positions)
    rows = embed(encoding, zeros, positions)[0]
    np.testing.assert_allclose(rows[0], encoding.table[...][0, 3], rtol=0)
    assert np.isnan(rows[1:]).all()
    clamped = embed(common.build("learned_2d", grid=(3, 4), out_of_range="clamp"), zeros, positions)
    nearest = encoding.table[...][np.array([0, 2, 2, 0, 1]), np.array([3, 0, 3, 2, 0])]
    np.testing.assert_allclose(clamped[0], nearest, rtol=0)


def test_a_grid_from_the_training_length():
    assert common.build("learned_2d", train_length=49).table.shape == (7, 7, common.WIDTH)
    with pytest.raises(ValueError, match="needs grid= or train_length="):
        common.build("learned_2d", train_length=None)
