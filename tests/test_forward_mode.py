"""Dense attention can be differentiated forwards, and more than once, under every scheme."""

import common
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import posenc_jax
from posenc_jax import Tokens

B, T = 2, 5
POSITIONS = np.array([[0, 1, 3, 4, 9], [2, 0, 1, 5, 4]], np.int32)
SEGMENT_IDS = np.array([[0, 0, 0, 1, 1], [0, 1, 1, 1, 1]], np.int32)


def inputs(seed: int):
    """Returns a layer's input ``[B, T, D]``, and queries, keys and values ``[B, T, H, C]``."""
    heads = B, T, common.HEADS, common.HEAD_DIM
    shapes = (B, T, common.WIDTH), heads, heads, heads
    return tuple(0.5 * common.normal(seed + i, *shape) for i, shape in enumerate(shapes))


def inner(tree, other) -> jax.Array:
    return sum((a * b).sum() for a, b in zip(*map(jax.tree.leaves, (tree, other)), strict=True))


@jax.jit
def derivatives(encoding, given, direction, weights_BTHC):
    """Returns the first derivative along ``direction``, and the second, each by two ways."""

    def attention(encoding, given):
        x_BTD, q, k, v = given
        tokens = Tokens.of(encoding, POSITIONS, SEGMENT_IDS)
        tokens = tokens.read(encoding, encoding.embed(x_BTD, tokens))
        return posenc_jax.attend(encoding, q, k, v, tokens, implementation="dense")

    def loss(*point):
        return (attention(*point) ** 2 * weights_BTHC).sum()

    point = encoding, given
    gradient = jax.grad(loss, argnums=(0, 1))
    _, slope = jax.jvp(loss, point, direction)
    _, forward_over_reverse = jax.jvp(gradient, point, direction)
    reverse_over_reverse = jax.grad(lambda *p: inner(gradient(*p), direction), argnums=(0, 1))
    first = slope, inner(gradient(*point), direction)
    return first, (forward_over_reverse, reverse_over_reverse(*point))


@pytest.mark.parametrize("name", common.SCHEMES)
def test_dense_attention_forward_and_twice(name):
    encoding = common.build(name)
    direction = common.moved(jax.tree.map(jnp.zeros_like, encoding), 1, by=1.0), inputs(20)
    weights_BTHC = common.normal(30, B, T, common.HEADS, common.HEAD_DIM)
    (slope, by_gradient), second = derivatives(encoding, inputs(10), direction, weights_BTHC)
    np.testing.assert_allclose(slope, by_gradient, rtol=1e-4, atol=1e-4)
    assert abs(slope) > 1e-3
    for one, other in zip(*map(jax.tree.leaves, second), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3 * (1 + np.abs(other).max()))
