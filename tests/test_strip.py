"""Biases laid out along diagonals are those computed for every pair, and so are their gradients."""

import common
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import posenc_jax
from posenc_jax.attention import strip
from posenc_jax.rotary.positions import text


def positions(kind, length, start):
    consecutive = np.arange(start, start + length, dtype=np.int32)[None]
    return {
        "consecutive": consecutive,
        "a gap": consecutive + (np.arange(length) > length // 2),
        "backwards": consecutive[:, ::-1],
        "fractional": consecutive * np.float32(0.5),
        "two rows": np.concatenate([consecutive, 3 * consecutive]),
    }[kind]


@pytest.mark.parametrize("name", ["t5", "kerple_log", "kerple_power", "sandwich"])
@pytest.mark.parametrize(
    "kinds",
    [
        ("consecutive", "consecutive"),
        ("a gap", "consecutive"),
        ("consecutive", "backwards"),
        ("fractional", "consecutive"),
        ("two rows", "two rows"),
    ],
)
def test_bias_and_gradient(name, kinds):
    """Queries 5 .. 11 against keys 0 .. 9: other lengths, another start."""
    T, S = 7, 10
    encoding = common.build(name)
    q_positions, k_positions = positions(kinds[0], T, 5), positions(kinds[1], S, 0)
    weights = common.normal(0, 2, common.HEADS, T, S)

    @jax.jit
    def of_tile(encoding, q_positions, k_positions):
        def loss(encoding):
            q, k = jnp.zeros((2, T, common.HEADS, 8)), jnp.zeros((2, S, common.HEADS, 8))
            sides = (
                posenc_jax.Tokens.of(encoding, jnp.asarray(p)) for p in (q_positions, k_positions)
            )
            seen = posenc_jax.logits(encoding, q, k, *sides)
            return (weights * seen).sum(), seen

        return jax.value_and_grad(loss, has_aux=True)(encoding)

    # One pair at a time, which has no diagonals.
    rows = []
    for t in range(T):
        row = [
            of_pair(encoding, q_positions[:, t : t + 1], k_positions[:, s : s + 1])
            for s in range(S)
        ]
        rows.append(np.concatenate(row, axis=-1))
    (_, seen), gradient = of_tile(encoding, q_positions, k_positions)
    expected = np.concatenate(rows, axis=-2)
    np.testing.assert_allclose(seen, np.broadcast_to(expected, seen.shape), rtol=1e-6, atol=1e-6)

    step = 1e-2
    for path, leaf in common.parameter_paths(gradient):
        index = tuple(np.random.default_rng(0).integers(0, leaf.shape))
        moved = [common.moved_at(encoding, path, index, by) for by in (step, -step)]
        up, down = (of_tile(each, q_positions, k_positions)[0][0] for each in moved)
        slope = float(up - down) / (2 * step)
        np.testing.assert_allclose(leaf[index], slope, rtol=2e-2, atol=2e-2)
    has_gradient = any(np.abs(leaf).max() > 0.1 for leaf in jax.tree.leaves(gradient))
    assert has_gradient == (name != "sandwich")  # which has nothing to train


@jax.jit
def of_pair(encoding, q_position, k_position):
    one = jnp.zeros((max(len(q_position), len(k_position)), 1, common.HEADS, 8))
    sides = (posenc_jax.Tokens.of(encoding, p) for p in (q_position, k_position))
    return posenc_jax.logits(encoding, one, one, *sides)


def test_consecutive_positions_are_computed_once_a_distance():
    calls = []

    def function(parameters, distance_N):
        jax.debug.callback(lambda d: calls.append(d.shape), distance_N)
        return parameters * distance_N[None]

    for start in (text(6), text(6)[:, ::-1]):
        encoding = common.build("alibi")
        tokens = posenc_jax.Tokens.of(encoding, jnp.asarray(start))
        one = jnp.zeros((1, 6, common.HEADS, 8))

        class Seen(type(encoding)):
            def score(self, logits_BHTS, tile):
                return logits_BHTS + strip.bias_by_distance(function, jnp.ones((4, 1)), tile)

        jax.block_until_ready(jax.jit(posenc_jax.logits)(Seen(num_heads=4), one, one, tokens))
        jax.effects_barrier()
    assert calls == [(11,), (36,)]
