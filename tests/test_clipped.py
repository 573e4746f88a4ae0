"""Tables of clipped distances are looked up alike in tiles of every kind, and so are gradients."""

import common
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from posenc_jax.attention.clipped import add_table_products, mix_table_rows
from posenc_jax.encoding import Tile

B, T, S, H, C, REACH = 2, 70, 45, 2, 8, 6


def tile_of(q_positions, k_positions):
    nothing = jnp.zeros((1, 1, 1, 1))
    return Tile(
        *(nothing, nothing, jnp.asarray(q_positions), jnp.asarray(k_positions)),
        *(nothing, nothing, None, None, 1.0, jnp.arange(H), H),
    )


def both(logits, q, weights, table, tile):
    return add_table_products(logits, q, table, tile), mix_table_rows(weights, table, tile)


def pair_by_pair(logits, q, weights, table, tile):
    """As the paper has it."""
    ahead = jnp.round(tile.k_positions[:, None, :] - tile.q_positions[:, :, None]).astype(int)
    rows = table[jnp.clip(ahead, -REACH, REACH) + REACH]
    rows = jnp.broadcast_to(rows, (B, T, S, C))
    added = logits + jnp.einsum("bthc,btsc->bhts", q, rows)
    return added, jnp.einsum("bhts,btsc->bthc", weights, rows)


def line(length, start):
    return np.arange(start, start + length, dtype=np.int32)[None]


TILES = {
    "on the diagonal": (line(T, 0), line(S, 0)),
    "below the diagonal": (line(T, 50), line(S, 0)),
    "above the diagonal": (line(T, 0), line(S, 40)),
    "in the corner": (line(T, S + REACH - 2), line(S, 0)),
    "just far": (line(T, S + REACH - 1), line(S, 0)),
    "all ahead": (line(T, 0), line(S, 500)),
    "a gap in queries": (line(T, 0) + (np.arange(T) > 30), line(S, 0)),
    "keys backwards": (line(T, 0), line(S, 0)[:, ::-1]),
    "halves": (0.5 * np.float32(line(T, 0)), line(S, 0)),
    "two rows": (np.concatenate([line(T, 0), 3 * line(T, 0)]), line(S, 0)),
    "two rows far": (np.concatenate([line(T, 60), line(T, 90)]), line(S, 0)),
}


@pytest.mark.parametrize("where", TILES)
def test_values_and_gradients(where):
    tile = tile_of(*TILES[where])
    shapes = (B, H, T, S), (B, T, H, C), (B, H, T, S), (2 * REACH + 1, C)
    operands = [common.normal(seed, *shape) for seed, shape in enumerate(shapes)]
    expected, expected_pull = jax.vjp(lambda *x: pair_by_pair(*x, tile), *operands)
    actual, pull = jax.vjp(jax.jit(lambda *x: both(*x, tile)), *operands)
    d_outputs = tuple(common.normal(9 + i, *x.shape) for i, x in enumerate(expected))
    for pairs in ((actual, expected), (pull(d_outputs), expected_pull(d_outputs))):
        for one, other in zip(*pairs, strict=True):
            scale = float(jnp.abs(other).max())
            np.testing.assert_allclose(one, other, rtol=0, atol=2e-6 * scale)
