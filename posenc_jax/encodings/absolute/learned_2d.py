r"""Adds learned absolute positions on a grid to the token embeddings.

https://arxiv.org/abs/2010.11929 (ViT)

$$ x_t \gets x_t + P[r_t, c_t] $$

P has a trained vector for every cell of the training grid, and token t lies in row r_t and column
c_t. Overrides ``embed``.
"""

import itertools
import math

import jax.numpy as jnp
from flax import nnx

from posenc_jax.checks import count_of, counts_of
from posenc_jax.encodings.absolute.learned import Learned, row_of, rows_between
from posenc_jax.lookup import rows
from posenc_jax.positions import on_axes
from posenc_jax.tokens import Tokens


class Learned2D(Learned):
    """Adds one trained vector for each cell of a grid, once at the input.

    Text, ``[B, T]``, lies on the diagonal, so it can have as many positions as the shortest side.

    Args:
      train_length: number of tokens in one training sequence.
      grid: number of cells along each position axis, such as ``(rows, columns)``; positions are
        ``[B, T, A]`` in this order, or ``[B, T]``. By default it is the largest square of no more
        than ``train_length`` cells.
      out_of_range: meaning of a position outside the grid, on each axis as in ``Learned``: "error",
        "clamp", or "interpolate", which scales an axis longer than the grid's down to it and
        interpolates between cells, bilinearly as ViT does at another resolution. Each axis of
        ``[B, T, A]`` has its own length, unless ``encoding.at`` is given one for all axes.
      rngs: source of the initial values, N(0, 0.02).
    """

    def __init__(
        self,
        *,
        model_dim: int,
        rngs: nnx.Rngs,
        train_length: int | None = None,
        grid: tuple[int, ...] | None = None,
        out_of_range: str = "error",
    ):
        if grid is None and train_length is None:
            raise ValueError(
                "learned_2d needs grid=(rows, columns), or train_length=rows * columns"
            )
        if grid is None:
            grid = (math.isqrt(count_of("train_length", train_length)),) * 2
        grid = counts_of("grid", grid)
        cells = math.prod(grid)
        super().__init__(
            model_dim=model_dim, train_length=cells, rngs=rngs, out_of_range=out_of_range
        )
        self.table = nnx.Param(self.table[...].reshape(*grid, model_dim))

    def prepare(self, tokens: Tokens, length):
        """Makes the last position on each axis, ``[B, T, A]``, to scale by."""
        if not self.interpolates:
            return None
        positions_BTA = on_axes(tokens.positions, self.table.ndim - 1)
        by_axis = jnp.moveaxis(positions_BTA, -1, 0)
        lengths = [tokens.moved_to(axis).length(length) for axis in by_axis]
        last = jnp.stack([jnp.asarray(n, jnp.float32) for n in lengths], axis=-1) - 1
        shape = jnp.broadcast_shapes(last.shape, positions_BTA.shape)
        return jnp.broadcast_to(last, shape)

    def vectors(self, tokens: Tokens):
        *grid, channels = self.table.shape
        positions_BTA = on_axes(tokens.positions, len(grid))
        cells = self.table[...].reshape(-1, channels)
        if self.interpolates:
            return _between_cells(cells, grid, positions_BTA, tokens.made)
        coordinates = [
            row_of(positions_BTA[..., axis], side, self.out_of_range)
            for axis, side in enumerate(grid)
        ]
        outside = [coordinate == side for coordinate, side in zip(coordinates, grid, strict=True)]
        is_outside = jnp.stack(outside).any(axis=0)
        cell = jnp.ravel_multi_index(coordinates, grid, mode="clip")
        cell = jnp.where(is_outside, len(cells), cell)
        return rows(cells, cell, mode="fill", fill_value=jnp.nan)


def _between_cells(cells, grid, positions_BTA, longest_BTA):
    """Returns the multilinear mean of the corners around each position."""
    sides = [
        rows_between(positions_BTA[..., axis], longest_BTA[..., axis], side)
        for axis, side in enumerate(grid)
    ]
    table = jnp.zeros(())
    for corner in itertools.product(*([(0, 1)] * len(grid))):
        weight, coordinates = jnp.ones(()), []
        for is_above, (below, above, share) in zip(corner, sides, strict=True):
            weight = weight * (share if is_above else 1 - share)
            coordinates.append(above if is_above else below)
        cell = jnp.ravel_multi_index(coordinates, grid, mode="clip")
        table = table + weight[..., None] * rows(cells, cell)
    return table
