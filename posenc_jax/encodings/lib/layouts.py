"""Counts RoPE's channel pairs, and converts between their two layouts, exactly.

"half" stores the first channels of all pairs and then the second ones, like a ``[2, P]`` matrix;
"interleaved" stores pair after pair, like its transpose. A model trained in one layout is the same
model in the other once the channels of its queries and keys are reordered: the output channels of
both projections (weights and biases) and, where queries and keys are normalised, the scales of the
norm. Values and the output projection stay as they are.
"""

from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from posenc_jax.checks import check_multiple, count_of

Array = TypeVar("Array", np.ndarray, jax.Array)


def to_interleaved(x: Array, *, rotary_dim: int | None = None, axis: int = -1) -> Array:
    """Takes ``x`` in the "half" layout and returns it in the "interleaved" layout.

    Args:
      x: NumPy or JAX array with the channels of one head along ``axis``: activations
        ``[B, T, H, C]``, or a projection ``[D, H, C]``. Split the heads of a matrix ``[D, H * C]``
        first; ``[H * C, D]``, as PyTorch stores it, becomes ``[H, C, D]`` with ``axis=1``.
      rotary_dim: with partial rotary, how many channels rotate; the others stay in place.
      axis: the axis of the channels.
    """
    return _transposed(x, rotary_dim, axis, lambda pairs: (2, pairs))


def to_half(x: Array, *, rotary_dim: int | None = None, axis: int = -1) -> Array:
    """Takes ``x`` in the "interleaved" layout and returns it in the "half" layout.

    The arguments are as in ``to_interleaved``.
    """
    return _transposed(x, rotary_dim, axis, lambda pairs: (pairs, 2))


def pairs_of(head_dim: int, rotary_dim: int | None) -> int:
    """Returns the number of channel pairs that rotate."""
    name, width = ("head_dim", head_dim) if rotary_dim is None else ("rotary_dim", rotary_dim)
    check_multiple(2, **{name: count_of(name, width, 2, head_dim)})  # channels rotate in pairs
    return width // 2


def _transposed(x, rotary_dim, axis, matrix_of):
    pairs = pairs_of(x.shape[axis], rotary_dim)
    xp: Any = jnp if isinstance(x, jax.Array) else np
    x = xp.moveaxis(x, axis, -1)
    moving, still = x[..., : 2 * pairs], x[..., 2 * pairs :]
    matrix = moving.reshape(*moving.shape[:-1], *matrix_of(pairs))
    moving = matrix.swapaxes(-1, -2).reshape(moving.shape)
    return xp.moveaxis(xp.concatenate([moving, still], axis=-1), -1, axis)
