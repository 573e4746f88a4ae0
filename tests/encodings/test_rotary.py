"""Tests the rotary family's three dials on their own, the angles under them, and the layouts."""

import common
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import posenc_jax
from posenc_jax import Side
from posenc_jax.encodings.lib.angles import cos_sin
from posenc_jax.encodings.lib.layouts import to_half, to_interleaved
from posenc_jax.encodings.rotary.frequencies.base import geometric
from posenc_jax.encodings.rotary.rope import RoPE
from posenc_jax.positions import packed, text

FREQUENCIES = geometric(32, 10000.0)
QUERIES = Side(None, common.HEADS, is_query=True)


def check_angles(cos, sin, positions, frequencies, atol):
    angles = positions.astype(np.longdouble) * np.asarray(frequencies, np.longdouble)
    common.close(cos, np.cos(angles), rtol=0, atol=atol)
    common.close(sin, np.sin(angles), rtol=0, atol=atol)


def test_angles_of_negative_and_fractional_positions():
    """Angles are exact to 5e-7 for every int32 position, and as float32 too."""
    rng = np.random.default_rng(0)
    whole = [
        rng.integers(-(2**bits), 2**bits, size=(500, 1)).astype(np.int32) for bits in range(20, 32)
    ]
    ends = np.array([[-(2**31)], [2**31 - 1], [2**22 - 1], [2**22], [-(2**22) - 1]], np.int32)
    near = rng.uniform(-3000, 3000, size=(500, 1)).astype(np.float32)
    angles = jax.jit(lambda p: cos_sin(p, FREQUENCIES))
    for positions in (*whole, ends, near):
        for given in (positions, positions.astype(np.float32)):
            cos, sin = angles(given)
            check_angles(cos, sin, given, FREQUENCIES, atol=5e-7)


def test_axes_and_sections_may_be_lists_and_arrays():
    """Configs make lists, NumPy makes arrays."""
    axes = ((0, 0, 1, 1), (1, 1, 0, 0))
    for given in (np.array(axes), np.array(axes).tolist()):
        assert RoPE(head_dim=8, axes=given).axes == axes
    for given in ([2, 1, 1], np.array([2, 1, 1])):
        assert common.build("mrope", sections=given).axes == (0, 0, 1, 2)


def test_gradients_of_rates_are_as_exact_at_negative_positions():
    """A shift of all positions changes no logit, so it changes no gradient."""
    encoding = common.build("lerope")
    q, k, v = (common.normal(i, 1, 64, common.HEADS, common.HEAD_DIM) for i in range(3))

    @jax.jit
    @jax.grad
    def gradient(encoding, q, k, v, positions):
        return (posenc_jax.attend(encoding.at(positions), q, k, v) * v).sum()

    here, below = (
        jax.tree.leaves(gradient(encoding, q, k, v, text(64) + start))[0] for start in (0, -64)
    )
    assert np.abs(below - here).max() < 1e-4 * np.abs(here).max()


def test_learned_rates_are_exact_at_large_positions():
    encoding = common.build("lerope")
    encoding.alpha[...] = jnp.linspace(-0.3, 0.7, common.HEAD_DIM // 2)
    positions = np.array([[4096, 131_071, 1_048_575]])
    cos, sin = jax.jit(lambda e: e.at(positions).tokens.made)(encoding)[:2]
    rates = geometric(common.HEAD_DIM, 10000.0) * np.exp(np.asarray(encoding.alpha[...], float))
    check_angles(cos[0, :, 0], sin[0, :, 0], positions[0, :, None], rates, atol=5e-7)


# Layouts


@pytest.mark.parametrize(
    ("layout", "convert", "rotary_dim"),
    [("half", to_half, common.HEAD_DIM), ("interleaved", to_interleaved, 6)],
)
def test_a_model_in_the_other_layout(layout, convert, rotary_dim):
    """Converted projections of queries and keys, ``[D, C, H]`` here, give the same model."""
    other = {"half": "interleaved", "interleaved": "half"}[layout]
    new, old = (
        common.build("rope", layout=item, rotary_dim=rotary_dim) for item in (layout, other)
    )
    x_BTD = 0.5 * common.normal(0, 2, 9, common.WIDTH)
    q, k, v = common.projections()
    converted = (convert(w.swapaxes(1, 2), rotary_dim=rotary_dim, axis=1) for w in (q, k))
    converted = [*(w.swapaxes(1, 2) for w in converted), v]
    expected = common.attention(old, x_BTD, text(9), weights=[q, k, v])
    actual = common.attention(new, x_BTD, text(9), weights=converted)
    common.close(actual, expected)
    unconverted = common.attention(new, x_BTD, text(9), weights=[q, k, v])
    assert np.abs(unconverted - expected).max() > 1e-3


def test_positions_too_far_for_xpos_become_nan():
    """Products of channels would be lost there, silently."""
    encoding = posenc_jax.make("xpos", head_dim=64, scale_base=32)
    q, k = common.normal(0, 1, 2, 1, 64), common.normal(1, 1, 2, 1, 64)

    def logits(first):
        return posenc_jax.logits(encoding.at([[first, first + 1]]), q, k)

    common.close(logits(59 * 32), logits(0))
    assert np.isnan(logits(61 * 32)).all()


def test_positions_of_packed_documents():
    segment_ids = jnp.array([[1, 1, 1, 2, 2, 1], [4, 0, 0, 0, 9, 9]])
    # An id that comes again is another document.
    np.testing.assert_array_equal(packed(segment_ids), [[0, 1, 2, 0, 1, 0], [0, 0, 1, 2, 0, 1]])
