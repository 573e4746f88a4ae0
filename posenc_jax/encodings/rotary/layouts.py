"""Converts between the two layouts of RoPE's channel pairs, exactly.

"half" stores the first channels of all pairs and then the second ones, like a ``[2, P]`` matrix;
"interleaved" stores pair after pair, like its transpose. A model trained in one layout is the same
model in the other once the channels of its queries and keys are reordered. These are the output
channels of their projections (weights and biases) and, where queries and keys are normalised, the
scales of that norm. Values and the output projection stay as they are.
"""

from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

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

    The arguments are those of ``to_interleaved``.
    """
    return _transposed(x, rotary_dim, axis, lambda pairs: (pairs, 2))


def _transposed(x, rotary_dim, axis, matrix_of):
    channels = x.shape[axis]
    rotary_dim = channels if rotary_dim is None else rotary_dim
    if rotary_dim % 2 or not 2 <= rotary_dim <= channels:
        raise ValueError(
            f"rotary_dim={rotary_dim} must be even and within 2..{channels}, the channels along "
            f"axis {axis} of {x.shape}: give the rotary_dim of the encoding and the axis of one "
            "head's channels"
        )
    xp: Any = jnp if isinstance(x, jax.Array) else np
    x = xp.moveaxis(x, axis, -1)
    turning, still = x[..., :rotary_dim], x[..., rotary_dim:]
    matrix = turning.reshape(*turning.shape[:-1], *matrix_of(rotary_dim // 2))
    turning = matrix.swapaxes(-1, -2).reshape(turning.shape)
    return xp.moveaxis(xp.concatenate([turning, still], axis=-1), -1, axis)
