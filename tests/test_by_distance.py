"""Biases laid out along diagonals are those computed for every pair, and so are their gradients."""

import common
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import posenc_jax
from posenc_jax import Tokens
from posenc_jax.encodings.bias.by_distance import bias_by_distance
from posenc_jax.positions import text

BY_DISTANCE = ("t5", "kerple_log", "kerple_power", "sandwich")
B, T = 2, 8


def loss_and_logits(encoding, q_positions, k_positions):
    """Returns a weighted sum of the logits of zero queries and keys, and those logits."""
    q, k = (jnp.zeros((2, p.shape[1], common.HEADS, 8)) for p in (q_positions, k_positions))
    sides = (Tokens.of(encoding, p) for p in (q_positions, k_positions))
    seen = posenc_jax.logits(encoding, q, k, *sides)
    return (common.normal(0, *seen.shape) * seen).sum(), seen


with_gradient = jax.value_and_grad(loss_and_logits, has_aux=True)


@pytest.mark.parametrize("name", BY_DISTANCE)
@pytest.mark.parametrize("sides", [((7, 5), (10, 0)), ((7, 0), (3, 6)), ((1, 9), (10, -4))])
def test_diagonals_are_pairs(name, sides):
    """Both forms agree; as arguments of jit, positions are not known to be consecutive."""
    encoding = common.build(name)
    positions = [text(length, start) for length, start in sides]
    actual = jax.jit(lambda encoding: with_gradient(encoding, *positions))(encoding)
    expected = jax.jit(with_gradient)(encoding, *positions)
    for one, other in zip(*map(jax.tree.leaves, (actual, expected)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("positions", "count"), [(text(6), 11), (text(6)[:, ::-1], 36), (0.5 * text(6), 36)]
)
def test_consecutive_positions_are_computed_once_for_each_distance(positions, count):
    counts = []

    def function(distance_N):
        counts.append(distance_N.size)
        return distance_N[None]

    class Seen(posenc_jax.Encoding):
        def score(self, logits_BHTS, tile):
            return logits_BHTS + bias_by_distance(function, tile)

    tokens = Tokens.of(Seen(), positions.astype(np.float32) if count == 36 else positions)
    one = jnp.zeros((1, 6, 1, 8))
    bias = posenc_jax.logits(Seen(), one, one, tokens)[0, 0]
    np.testing.assert_array_equal(bias, positions[0][:, None] - positions[0][None])
    assert counts == [count]


@pytest.mark.parametrize("name", [*BY_DISTANCE, "fire"])
def test_consecutive_positions_on_a_mesh_of_explicit_axes(name):
    """The batch and the heads are sharded; positions and parameters are on every device."""
    mesh = jax.make_mesh((2, 4), ("data", "model"), axis_types=(AxisType.Explicit,) * 2)
    encoding = common.build(name)
    heads = [common.normal(i, B, T, common.HEADS, common.HEAD_DIM) for i in range(3)]

    @jax.jit
    @jax.grad
    def gradient(arguments):
        encoding, heads = arguments
        out = posenc_jax.attend(encoding, *heads, Tokens.of(encoding, text(T)))
        return (out**2).sum()

    expected = gradient((encoding, heads))
    with jax.set_mesh(mesh):
        layout = NamedSharding(mesh, PartitionSpec("data", None, "model"))
        everywhere = NamedSharding(mesh, PartitionSpec())
        placed = jax.device_put(encoding, everywhere), jax.device_put(heads, layout)
        actual = gradient(placed)
    for one, other in zip(*map(jax.tree.leaves, (actual, expected)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("implementation", ["dense", "blockwise"])
@pytest.mark.parametrize("name", ["alibi", "kerple_log", "kerple_power", "sandwich", "fire"])
def test_gradient_by_positions(name, implementation):
    """It is that of a small step; two tokens are in one place, and move together."""
    encoding = common.moved(common.build(name), 1, by=1.0)
    positions = np.random.default_rng(0).uniform(0.5, 12, (1, T)).astype(np.float32)
    direction = common.normal(1, 1, T)
    positions[:, 3], direction[:, 3] = positions[:, 5], direction[:, 5]
    q, k, v, weights = (common.normal(i, B, T, common.HEADS, common.HEAD_DIM) for i in range(2, 6))

    @jax.jit
    def total(positions):
        tokens = Tokens.of(encoding, positions)
        out = posenc_jax.attend(encoding, q, k, v, tokens, implementation=implementation)
        return (out * weights).sum()

    gradient = jax.jit(jax.grad(total))(positions)
    assert np.isfinite(gradient).all()
    difference = total(positions + 1e-2 * direction) - total(positions - 1e-2 * direction)
    np.testing.assert_allclose(
        (gradient * direction).sum(), difference / 2e-2, rtol=2e-2, atol=1e-3
    )
