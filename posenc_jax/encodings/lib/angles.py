"""Computes cosine and sine of ``position * frequency``, for every int32 position.

A float32 product of a position and a frequency loses its fractional turn: at position 2,097,151
the cosine is off by 0.08. Here the product is never formed. The frequency is held in turns per
token and cut into pieces of 12 bits, the position into pieces of 11 bits; each partial product is
then exact in float32, and whole turns are dropped from it without rounding.

The error is below 5e-7 for every int32 position and frequencies up to 1. A frequency that is traced
has 44 bits: its error is below 5e-7 up to position 2^24 and below 2e-5 past it, in both directions.

Only additions, multiplications and roundings are used: the same numbers come out on CPU, GPU and
TPU, nothing is tabulated, and the derivative with respect to the position is the frequency.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from posenc_jax.encodings.lib.double import Double
from posenc_jax.positions import on_axes

_BLOCK = 2048
_GRIDS = 2.0 ** (12 * np.arange(1, 4))


def cos_sin(
    positions: jax.Array, inv_freq: np.ndarray | jax.Array | Double
) -> tuple[jax.Array, jax.Array]:
    """Returns the float32 cosine and sine of ``positions * inv_freq`` radians.

    Args:
      positions: int or float32, ``[..., 1]`` or ``[..., P]``.
      inv_freq: radians per unit of position, ``[P]`` or of the rank of ``positions``. A float64
        NumPy array or a ``Double`` is used to its full precision; a JAX array as it is in float32.
    """
    if not isinstance(inv_freq, np.ndarray):
        inv_freq = Double.of(inv_freq)
    turns = inv_freq / (2 * math.pi)
    nearest = turns.high if isinstance(turns, Double) else turns
    pieces = [_pieces(turns * unit) for unit in (_BLOCK**2, _BLOCK, 1)]

    def of_rank(piece):
        piece = piece.astype(np.float32)
        return piece.reshape((1,) * (positions.ndim - piece.ndim) + piece.shape)

    return _cos_sin_of_pieces(positions, *jax.tree.map(of_rank, (pieces, nearest)))


def tables_of_text(
    positions_BT: jax.Array, inv_freq: np.ndarray | jax.Array | Double
) -> tuple[jax.Array, jax.Array]:
    """Returns the cosines and sines of positions on one axis, for all heads, ``[B, T, 1, P]``."""
    cos, sin = cos_sin(positions_BT[..., None], inv_freq)
    return cos[:, :, None, :], sin[:, :, None, :]


def cos_sin_of_sum(
    positions: jax.Array, rates_KPA: np.ndarray | jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Returns float32 cosine and sine of ``sum_a positions_a * rates_a`` radians, ``[B, T, K, P]``.

    The rotations of the axes are composed, so that no large angles are added.

    Args:
      positions: int or float32 ``[B, T, A]``, or ``[B, T]`` for text, the same on every axis.
      rates_KPA: for each head, pair and axis radians per unit of position, as in ``cos_sin``.
    """
    num_axes = rates_KPA.shape[-1]
    positions_BTA = on_axes(positions, num_axes)
    (cos, sin), *others = (
        cos_sin(positions_BTA[:, :, axis, None, None], rates_KPA[None, None, :, :, axis])
        for axis in range(num_axes)
    )
    for more_cos, more_sin in others:
        cos, sin = rotated(cos, sin, more_cos, more_sin)
    return cos, sin


def rotated(a, b, cos, sin) -> tuple[jax.Array, jax.Array]:
    """Returns the channels ``a`` and ``b`` of pairs, rotated by an angle.

    Given the cosine and sine of another angle, it returns the cosine and sine of the sum.
    """
    return a * cos - b * sin, b * cos + a * sin


# Without jit, JAX would compile each operation by itself outside of a compiled program.
@jax.jit
def _cos_sin_of_pieces(positions, pieces, nearest):
    """Returns the cosine and sine, from the pieces for each part of a position."""
    coarse, middle, fine, rest = _split(positions)
    of_coarse, of_middle, of_fine = pieces
    # The two leading pieces are multiples of 2^-12 and 2^-24: these sums do not round.
    angle = _drop_whole(middle * of_middle[0] + fine * of_fine[0])
    angle = _drop_whole(angle + coarse * of_coarse[0])
    angle = _drop_whole(angle + (middle * of_middle[1] + fine * of_fine[1]))
    angle = angle + coarse * of_coarse[1]
    small = (
        coarse * coarse_piece + (middle * middle_piece + fine * fine_piece)
        for coarse_piece, middle_piece, fine_piece in zip(
            of_coarse[2:], of_middle[2:], of_fine[2:], strict=True
        )
    )
    angle = angle + sum(small)
    if rest is not None:
        angle = angle + rest * nearest
    return _cos_sin_of_turns(angle)


# XLA does not fuse a loop with other code. Fused, these sines would be computed again in every
# rotation of every layer, for each batch row and head (9 % of a training step on a CPU). Without
# jit, JAX would compile the loops of this file anew at each call outside of a compiled program.
@jax.jit
def _cos_sin_of_turns(turns):
    def cos_or_sin(is_cos):
        return jnp.where(is_cos, jnp.cos(2 * math.pi * turns), jnp.sin(2 * math.pi * turns))

    cos, sin = jax.lax.map(cos_or_sin, jnp.array([True, False]))
    return cos, sin


def _split(positions):
    """Returns parts that are exact in float32: 2048 * (2048 * coarse + middle) + fine + rest.

    All have the sign of the position: parts of different signs cancel, and the gradients of rates,
    which are sums over tokens for each part, would lose digits.
    """
    if jnp.issubdtype(positions.dtype, jnp.integer):
        block = jnp.asarray(_BLOCK, positions.dtype)
        blocks, fine = jax.lax.div(positions, block), jax.lax.rem(positions, block)
        counts = jax.lax.div(blocks, block), jax.lax.rem(blocks, block), fine
        return *(count.astype(jnp.float32) for count in counts), None
    # Written with a stopped gradient, so that all of the derivative is in ``rest``.
    whole = jax.lax.stop_gradient(jnp.trunc(positions))
    blocks = jnp.trunc(whole / _BLOCK)
    coarse = jnp.trunc(blocks / _BLOCK)
    return coarse, blocks - _BLOCK * coarse, whole - _BLOCK * blocks, positions - whole


def _pieces(turns: np.ndarray | Double) -> list:
    """Returns float32 pieces that add up to the fraction of ``turns``, all but the last of 12 bits.

    Rounding has no derivative, so all of the derivative is in the last.
    """
    if not isinstance(turns, np.ndarray):
        return _pieces_of_double(turns)
    turns, pieces = turns - np.floor(turns), []
    for grid in _GRIDS:
        pieces.append(np.round(turns * grid) / grid)
        turns = turns - pieces[-1]
    return [*pieces, turns]


# A loop, because fused, the pieces would be cut again for each token.
@jax.jit
def _pieces_of_double(turns: Double) -> list:
    def step(turns, grid):
        piece = jax.lax.stop_gradient(jnp.round(turns.high * grid) / grid)
        return turns - piece, piece

    turns = turns - jax.lax.stop_gradient(jnp.floor(turns.high))
    rest, pieces = jax.lax.scan(step, turns, jnp.asarray(_GRIDS, jnp.float32))
    return [*pieces, rest.high + rest.low]


def _drop_whole(turns):
    return turns - jnp.round(turns)
