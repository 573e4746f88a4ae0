"""Biases laid out along diagonals are those computed for every pair, and so are their gradients."""

import functools

import common
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import close

import posenc_jax
from posenc_jax.attention.blockwise import blockwise
from posenc_jax.encodings.lib.by_distance import bias_by_distance
from posenc_jax.positions import text


def positions(kind, length, start):
    consecutive = np.arange(start, start + length, dtype=np.int32)[None]
    return {
        "consecutive": consecutive,
        "a gap": consecutive + (np.arange(length) > length // 2),
        "backwards": consecutive[:, ::-1],
        "fractional": consecutive * np.float32(0.5),
        "two rows": np.concatenate([consecutive, 3 * consecutive]),
    }[kind]


TILES = [
    (("consecutive", 7, 5), ("consecutive", 10, 0)),
    (("consecutive", 10, -4), ("consecutive", 3, 6)),
    (("consecutive", 1, 5), ("consecutive", 6, 0)),
    (("consecutive", 6, 0), ("consecutive", 1, 0)),
    (("a gap", 7, 5), ("consecutive", 10, 0)),
    (("consecutive", 7, 5), ("backwards", 10, 0)),
    (("fractional", 7, 5), ("consecutive", 10, 0)),
    (("two rows", 7, 5), ("two rows", 10, 0)),
]


@pytest.mark.parametrize(
    ("name", "queries", "keys"),
    [("t5", *tile) for tile in TILES]
    + [(name, *TILES[0]) for name in ("kerple_log", "kerple_power", "sandwich")],
)
def test_a_tile_has_the_bias_of_each_pair(name, queries, keys):
    """Queries and keys differ in number, and in where they start."""
    encoding = common.build(name)
    given = positions(*queries), positions(*keys)
    q, k = (jnp.zeros((len(p), p.shape[1], common.HEADS, 8)) for p in given)

    def bias_and_gradient(encoding, of_queries, of_keys):
        def loss(encoding):
            here, there = encoding.at(of_queries), encoding.at(of_keys)
            bias = posenc_jax.logits(here, q, there.keys(k, k))
            return (common.normal(0, *bias.shape) * bias).sum(), bias

        return jax.grad(loss, has_aux=True)(encoding)

    # Traced positions are not known to be consecutive.
    gradient, bias = jax.jit(lambda encoding: bias_and_gradient(encoding, *given))(encoding)
    expected_gradient, expected = jax.jit(bias_and_gradient)(encoding, *given)
    close(bias, expected)
    jax.tree.map(functools.partial(close, atol=1e-4), gradient, expected_gradient)


def test_parts_of_a_text_in_tiles():
    """Queries from the middle of a text agree in tiles that do not divide it, as do gradients."""
    encoding, length, start, T = common.build("t5"), 20, 9, 7
    heads = (T, length, length)
    q, k, v = (common.normal(i, 2, n, common.HEADS, 8) for i, n in enumerate(heads))

    def loss(encoding, q, k, v, positions, implementation):
        here = encoding.at(positions)
        part = here.part(start, T)
        assert part.tokens.consecutive == isinstance(positions, np.ndarray)
        out = posenc_jax.attend(part, q, here.keys(k, v), implementation=implementation)
        return (out**2).sum(), out

    gradients = jax.grad(loss, argnums=(0, 1, 2, 3), has_aux=True)
    arguments = encoding, q, k, v
    # Traced positions are not known to be consecutive.
    general = functools.partial(gradients, implementation="dense")
    expected = jax.jit(general)(*arguments, text(length, start=3))
    for implementation in ("dense", functools.partial(blockwise, block=4)):
        given = dict(positions=text(length, start=3), implementation=implementation)
        known = functools.partial(gradients, **given)
        jax.tree.map(functools.partial(close, atol=2e-5), jax.jit(known)(*arguments), expected)


@pytest.mark.parametrize(("positions", "count"), [(text(6), 11), (text(6)[:, ::-1], 6)])
def test_consecutive_positions_are_computed_once_for_each_distance(positions, count):
    counts = []

    def function(distance_N):
        counts.append(distance_N.size)
        return distance_N[None]

    class Counted(posenc_jax.Encoding):
        def score(self, logits_BHTS, pairs):
            return logits_BHTS + bias_by_distance(function, pairs)

    one = jnp.zeros((1, 6, 1, 8))
    jax.eval_shape(functools.partial(posenc_jax.logits, Counted().at(positions)), one, one)
    assert counts == [count]
