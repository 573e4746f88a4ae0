"""What data-dependent schemes compute over a sequence: exactly, and within their own document."""

import common
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import posenc_jax
from posenc_jax.rotary.positions import text
from posenc_jax.sequence import by_segment, running_sum, short_convolution


def close(actual, expected, rtol=1e-5, atol=1e-5):
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol)


@pytest.mark.parametrize("mean", [1e-3, 1.0, 50.0])
def test_differences_of_running_sums_are_exact_however_long_the_sequence(mean):
    x_BTN = mean * np.random.default_rng(0).exponential(size=(1, 1 << 18, 1)).astype(np.float32)
    high, low = jax.jit(running_sum)(x_BTN)
    exact = np.cumsum(x_BTN.astype(np.float64), axis=1)
    for apart in (1, 2, 300, 100_000):
        of_float32 = high[:, apart:] - high[:, :-apart]
        actual = of_float32 + (low[:, apart:] - low[:, :-apart])
        expected = exact[:, apart:] - exact[:, :-apart]
        close(actual, expected, rtol=2e-6, atol=1e-6 * mean)
        if apart < 3:  # what float32 alone would give
            assert np.abs(of_float32 - expected).max() > 1e-3 * mean


def test_gradient_of_a_running_sum():
    weights = common.normal(0, 1, 9, 2)

    def loss(x):
        high, low = running_sum(x)
        return ((high + low) * weights).sum()

    expected = np.cumsum(weights[:, ::-1], axis=1)[:, ::-1]
    close(jax.grad(loss)(common.normal(1, 1, 9, 2)), expected)


def test_a_token_far_into_a_sequence_forgets_as_much_as_an_early_one():
    encoding = common.build("fox", num_heads=1, bias_init=0.0)
    length, near = 1 << 17, 8
    x_BTD = 0.5 * common.normal(0, 1, length, common.WIDTH)
    x_BTD[:, -near:] = x_BTD[:, :near]
    tokens = posenc_jax.Tokens.of(encoding, text(length)).read(encoding, jnp.asarray(x_BTD))

    def between(part):
        high, low = (sums[:, part, None] - sums[:, None, part] for sums in tokens.prepared)
        return high + low

    close(between(slice(length - near, length)), between(slice(0, near)), rtol=1e-5, atol=1e-6)


def test_short_convolution_is_numpys():
    x, kernel = common.normal(0, 2, 9, 3), common.normal(1, 4, 3)
    expected = [
        np.stack([np.convolve(row[:, n], kernel[:, n])[:9] for n in range(3)], axis=-1) for row in x
    ]
    close(short_convolution(jnp.asarray(x), jnp.asarray(kernel)), np.stack(expected))
    one = short_convolution(jnp.asarray(x[:, :1]), jnp.asarray(kernel))
    close(one, x[:, :1] * kernel[None, :1])


def test_by_segment_puts_everything_back():
    segment_ids = np.array([[5, 2, 5, 2, 2], [1, 1, 1, 0, 0]])
    index = np.array([[4, 0, 3, 2, 1], [0, 1, 2, 3, 4]])
    tokens = posenc_jax.Tokens(text(5), jnp.asarray(segment_ids), None, jnp.asarray(index))
    x = jnp.asarray(index, jnp.float32)[..., None]
    seen = []

    def look(x, segment_ids):
        seen.extend([x[..., 0], segment_ids])
        return x + 10 * segment_ids[..., None]

    close(by_segment(look, x, tokens)[..., 0], index + 10 * segment_ids)
    close(seen[1], np.sort(segment_ids))
    close(seen[0], [[0, 1, 2, 3, 4], [3, 4, 0, 1, 2]])


@pytest.mark.parametrize("name", ["fox", "path", "selective_rope"])
def test_documents_interleaved_in_any_layout_are_separate_documents(name):
    """Tokens read in another order than they were written, those of two documents in turns."""
    encoding = common.build(name, **({"forget_gate": True} if name == "path" else {}))
    length, rng = 30, np.random.default_rng(0)
    segment_ids = rng.integers(0, 2, (1, length))
    x_BTD = 0.5 * common.normal(0, 1, length, common.WIDTH)
    layout = rng.permutation(length)

    def attend(x_BTD, tokens):
        tokens = tokens.read(encoding, x_BTD)
        q, k, v = (jnp.einsum("btd,dhc->bthc", x_BTD, w) for w in common.projections())
        return posenc_jax.attend(encoding, q, k, v, tokens)

    positions = text(length)
    together = posenc_jax.Tokens(
        positions, jnp.asarray(segment_ids[:, layout]), None, jnp.asarray(layout[None])
    )
    actual = np.empty((length, common.HEADS, common.HEAD_DIM))
    actual[layout] = attend(x_BTD[:, layout], together)[0]
    for document in (0, 1):
        its = np.flatnonzero(segment_ids[0] == document)
        alone = attend(x_BTD[:, its], posenc_jax.Tokens(positions[:, : len(its)]))
        close(actual[its], alone[0])
