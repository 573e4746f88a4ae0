"""From one layout of RoPE's channel pairs to the other, exactly.

"half" stores the first channels of all pairs and then the second ones, "interleaved" pair after
pair: the same numbers as a ``[2, P]`` matrix and as its transpose. A model trained in one layout is
the same model in the other once the channels of its queries and keys are reordered, which means
the output channels of their projections (weights and biases) and, where queries and keys are
normalised, the scales of that norm. Values and the output projection stay as they are.
"""

import jax
import jax.numpy as jnp
import numpy as np


def to_interleaved(x, *, rotary_dim: int | None = None, axis: int = -1):
    """``x`` in the "half" layout in, the same in the "interleaved" layout out.

    Args:
      x: NumPy or JAX array with the channels of one head along ``axis``: activations
        ``[B, T, H, C]``, or a projection ``[D, H, C]``. Of a matrix ``[D, H * C]`` split the heads
        off first; ``[H * C, D]``, as PyTorch stores it, becomes ``[H, C, D]`` with ``axis=1``.
      rotary_dim: with partial rotary, how many of the channels turn; the others stay in place.
      axis: the axis of the channels.
    """
    return _transposed(x, rotary_dim, axis, lambda pairs: (2, pairs))


def to_half(x, *, rotary_dim: int | None = None, axis: int = -1):
    """The way back: ``x`` in the "interleaved" layout in, the same in the "half" layout out."""
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
    xp = jnp if isinstance(x, jax.Array) else np
    x = xp.moveaxis(x, axis, -1)
    turning, still = x[..., :rotary_dim], x[..., rotary_dim:]
    matrix = turning.reshape(*turning.shape[:-1], *matrix_of(rotary_dim // 2))
    turning = matrix.swapaxes(-1, -2).reshape(turning.shape)
    return xp.moveaxis(xp.concatenate([turning, still], axis=-1), -1, axis)
