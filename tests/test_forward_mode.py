"""Dense attention can be differentiated forwards, and more than once, under every scheme."""

import common
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import posenc_jax

each_program = pytest.mark.parametrize("name", common.one_of_each_program())

B, T = 2, 5
POSITIONS = np.array([[0, 1, 3, 4, 9], [2, 0, 1, 5, 4]], np.int32)
SEGMENT_IDS = np.array([[0, 0, 0, 1, 1], [0, 1, 1, 1, 1]], np.int32)


def inputs(seed: int):
    """Returns a layer's input ``[B, T, D]``, and queries, keys and values ``[B, T, H, C]``."""
    heads = B, T, common.HEADS, common.HEAD_DIM
    shapes = (B, T, common.WIDTH), heads, heads, heads
    return tuple(0.5 * common.normal(seed + i, *shape) for i, shape in enumerate(shapes))


def inner(tree, other) -> jax.Array:
    """Returns the inner product of two trees of arrays."""
    return sum((a * b).sum() for a, b in zip(*map(jax.tree.leaves, (tree, other)), strict=True))


def attention(encoding, given, positions):
    x_BTD, q, k, v = given
    tokens = encoding.tokens(positions, SEGMENT_IDS)
    tokens = tokens.observed(encoding, encoding.embed(x_BTD, tokens))
    return posenc_jax.attend(encoding, q, k, v, tokens, implementation="dense")


@jax.jit
def derivatives(encoding, given, direction, weights_BTHC):
    """Returns the first derivative along ``direction`` in three ways, and the second in two."""

    def loss(encoding, given):
        return (attention(encoding, given, POSITIONS) ** 2 * weights_BTHC).sum()

    point = encoding, given
    gradient = jax.grad(loss, argnums=(0, 1))
    _, slope = jax.jvp(loss, point, direction)
    _, linear = jax.linearize(loss, *point)
    _, forward_over_reverse = jax.jvp(gradient, point, direction)
    reverse_over_reverse = jax.grad(lambda *p: inner(gradient(*p), direction), argnums=(0, 1))
    first = slope, linear(*direction), inner(gradient(*point), direction)
    return first, (forward_over_reverse, reverse_over_reverse(*point))


@pytest.mark.slow
@pytest.mark.parametrize("name", common.one_of_each_kind())
def test_dense_attention_forward_and_twice(name):
    encoding = common.build(name)
    direction = common.moved(jax.tree.map(jnp.zeros_like, encoding), 1, by=1.0), inputs(20)
    weights_BTHC = common.normal(30, B, T, common.HEADS, common.HEAD_DIM)
    first, second = derivatives(encoding, inputs(10), direction, weights_BTHC)
    slope, linear, by_gradient = first
    np.testing.assert_allclose(slope, by_gradient, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(linear, by_gradient, rtol=1e-4, atol=1e-4)
    assert abs(slope) > 1e-3
    for one, other in zip(*map(jax.tree.leaves, second), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3 * (1 + np.abs(other).max()))


@each_program
def test_gradient_by_positions_that_repeat(name):
    """The gradient is a number, also where a distance is 0, and forward mode gives the same."""
    encoding, given = common.build(name), inputs(10)
    positions = np.float32([[1, 1, 3, 4, 4], [2, 0, 2, 5, 2]])
    direction, weights_BTHC = common.normal(7, B, T), common.normal(30, *given[1].shape)

    @jax.jit
    def both(positions):
        def loss(positions):
            return (attention(encoding, given, positions) * weights_BTHC).sum()

        return jax.grad(loss)(positions), jax.jvp(loss, (positions,), (direction,))[1]

    gradient, slope = both(positions)
    assert np.isfinite(gradient).all()
    np.testing.assert_allclose(slope, (gradient * direction).sum(), rtol=1e-4, atol=1e-4)
