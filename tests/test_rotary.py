"""The three dials of the rotary family on their own, and the angles under them."""

import common
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from posenc_jax.rotary.angles import cos_sin
from posenc_jax.rotary.axes import chunked, interleaved
from posenc_jax.rotary.frequencies import geometric
from posenc_jax.rotary.positions import packed, text

FREQUENCIES = geometric(32, 10000.0)


def test_angles_of_negative_and_fractional_positions():
    """Exact to 4e-7 over four million positions each way."""
    rng = np.random.default_rng(0)
    whole = rng.integers(-(2**22) + 1, 2**22, size=(200, 1)).astype(np.int32)
    near = rng.uniform(-3000, 3000, size=(200, 1)).astype(np.float32)
    for positions in (whole, near):
        cos, sin = jax.jit(lambda p: cos_sin(p, FREQUENCIES))(positions)
        angles = positions.astype(np.float64) * FREQUENCIES
        np.testing.assert_allclose(cos, np.cos(angles), rtol=0, atol=4e-7)
        np.testing.assert_allclose(sin, np.sin(angles), rtol=0, atol=4e-7)


def test_angles_of_a_traced_frequency():
    frequencies = jnp.asarray(FREQUENCIES, jnp.float32)
    positions = np.array([[0], [5], [4097], [1_000_000]], np.int32)
    cos, _ = jax.jit(cos_sin)(positions, frequencies)
    angles = positions * np.asarray(frequencies, np.float64)
    # Its turns per token are one float32 division away from exact.
    np.testing.assert_allclose(cos[:2], np.cos(angles[:2]), rtol=0, atol=1e-6)
    np.testing.assert_allclose(cos[2:], np.cos(angles[2:]), rtol=0, atol=0.1)


def test_derivative_by_the_position_is_the_frequency():
    positions = jnp.array([[-2.25], [0.5], [3000.75]])

    def angle_sum(positions):
        cos, sin = cos_sin(positions, FREQUENCIES)
        return cos, sin

    (cos, sin), (d_cos, d_sin) = jax.jvp(angle_sum, (positions,), (jnp.ones_like(positions),))
    np.testing.assert_allclose(d_cos, -sin * FREQUENCIES[None], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(d_sin, cos * FREQUENCIES[None], rtol=1e-5, atol=1e-6)


def test_layouts_are_a_permutation_of_each_other():
    half, paper = (common.build("rope", layout=layout) for layout in ("half", "interleaved"))
    x_BTHC = jnp.asarray(common.normal(0, 2, 5, common.HEADS, common.HEAD_DIM))
    order = np.arange(common.HEAD_DIM).reshape(2, -1).T.ravel()
    by_half = half.rotate(x_BTHC, half.prepare(text(5), 5), is_query=True)
    by_paper = paper.rotate(x_BTHC[..., order], paper.prepare(text(5), 5), is_query=True)
    np.testing.assert_allclose(by_paper, by_half[..., order], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("layout", ["half", "interleaved"])
def test_a_bfloat16_rotation_is_rounded_once(layout):
    encoding = common.build("rope", layout=layout)
    prepared = encoding.prepare(text(300), 300)
    x_BTHC = jnp.asarray(common.normal(0, 1, 300, 2, common.HEAD_DIM), jnp.bfloat16)
    rounded = encoding.rotate(x_BTHC, prepared, is_query=True)
    exact = encoding.rotate(x_BTHC.astype(jnp.float32), prepared, is_query=True)
    np.testing.assert_array_equal(rounded, exact.astype(jnp.bfloat16))


def test_axes_of_equal_positions_are_text():
    plain = common.build("rope")
    positions = np.array([[3, 1, 4, 1, 5]], np.int32)
    stacked = jnp.asarray(np.stack([positions] * 3))
    for axes in (chunked((2, 1, 1)), interleaved((2, 1, 1))):
        several = common.build("rope", axes=axes)
        for one, other in zip(
            plain.prepare(jnp.asarray(positions), 6), several.prepare(stacked, 6), strict=True
        ):
            np.testing.assert_array_equal(one, other)


def test_allocations():
    assert chunked((2, 3, 1)) == (0, 0, 1, 1, 1, 2)
    assert interleaved((4, 2, 2)) == (0, 1, 2, 0, 1, 2, 0, 0)
    for sections in ((24, 20, 20), (11, 11, 10), (6, 5, 5)):
        assert tuple(np.bincount(interleaved(sections))) == sections
    with pytest.raises(ValueError, match="give axis 0 a larger section"):
        interleaved((1, 3, 4))


def test_positions_of_text():
    np.testing.assert_array_equal(text(4), [[0, 1, 2, 3]])
    np.testing.assert_array_equal(text(3, start=-2), [[-2, -1, 0]])
    assert text(2).dtype == jnp.int32


def test_positions_of_packed_documents():
    segment_ids = jnp.array([[1, 1, 1, 2, 2, 1], [4, 0, 0, 0, 9, 9]])
    # An id that comes again is another document.
    np.testing.assert_array_equal(packed(segment_ids), [[0, 1, 2, 0, 1, 0], [0, 0, 1, 2, 0, 1]])
