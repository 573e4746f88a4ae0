"""Builds positions of tokens on one axis, and copies one axis to several."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from posenc_jax.checks import MOST_ROUNDING, as_array, in_32_bits, is_real

NEARER = "subtract an origin that is nearer to the times"


def text(length: int, start: int = 0) -> np.ndarray | jax.Array:
    """Returns ``start, start + 1, ...``, int32 ``[1, T]``, which the batch shares.

    The positions are NumPy, so ``encoding.at`` knows that they are consecutive while it is
    traced. Where ``jax.export`` makes the length a symbol, they are an array of JAX.

    Raises:
      ValueError: a position is no whole number, or too large for int32.
    """
    if export.is_symbolic_dim(length):
        return start + jnp.arange(length, dtype=jnp.int32)[None]
    are_known = all(is_real(x) and not isinstance(x, jax.core.Tracer) for x in (start, length))
    if are_known:  # Numbers of Python's do not overflow.
        start, length = (np.asarray(x).item() for x in (start, length))
    are_known = are_known and not start % 1 and not length % 1
    if not are_known or not -(2**31) <= start <= start + length <= 2**31:
        raise ValueError(
            f"start={start!r} and length={length!r} must be whole numbers, known while tracing, "
            "with positions from -2**31 to 2**31 - 1; text at fractions is "
            "start + np.arange(length, dtype=np.float32)[None], and jnp.arange from a traced start"
        )
    return np.arange(start, start + length, dtype=np.int32)[None]


def packed(segment_ids) -> jax.Array:
    """Returns int32 positions that restart at 0 with every run of equal ``segment_ids`` ``[B, T]``.

    They are computed on the device, under ``jax.jit`` too.
    """
    segment_ids = as_array("segment_ids", segment_ids)
    if segment_ids.ndim != 2 or not jnp.issubdtype(segment_ids.dtype, jnp.integer):
        raise ValueError(
            f"segment_ids are {segment_ids.dtype} of shape {segment_ids.shape}, but must be whole "
            "numbers [B, T]: cast them, or add the batch axis"
        )
    renumber = "renumber them, np.unique(segment_ids, return_inverse=True)[1]"
    segment_ids = jnp.asarray(in_32_bits("segment_ids", segment_ids, renumber))
    index = jnp.arange(segment_ids.shape[-1], dtype=jnp.int32)
    index = jnp.broadcast_to(index, segment_ids.shape)
    starts = segment_ids[:, 1:] != segment_ids[:, :-1]
    starts = jnp.pad(starts, ((0, 0), (1, 0)), constant_values=True)
    return index - jax.lax.cummax(jnp.where(starts, index, 0), axis=1)


def since(times, origin) -> np.ndarray:
    """Returns ``times - origin``, subtracted on the host before anything is rounded.

    Large times, such as unix seconds, fit neither into int32 nor, to the second, into float32.
    Subtract an origin that all tokens which attend to each other share.

    Args:
      times: whole or floating-point numbers of any shape, NumPy or a list. Whole ones give int32,
        others float32.
      origin: a number, or an array that broadcasts against ``times``, such as one of each row.

    Raises:
      ValueError: a difference does not fit into the result, or is not finite, or the numbers were
        rounded before they came here.
    """
    times, origin = np.asarray(times), np.asarray(origin)
    if times.dtype.kind in "iu" and origin.dtype.kind in "iu":
        differences = np.asarray(np.subtract(times, origin, dtype=object))
        return in_32_bits("times since their origin", differences, NEARER)
    if times.dtype.kind in "iu" or times.dtype not in (np.float32, np.float64):
        raise ValueError(
            f"times of type {times.dtype} and an origin of type {origin.dtype} do not go together: "
            "give whole numbers for both, or float64 times"
        )
    rounded = times.dtype == np.float32 and np.spacing(abs(times)) > MOST_ROUNDING
    if np.any(rounded):
        raise ValueError(
            f"times of type float32, such as {times[rounded].flat[0]}, were rounded before they "
            "came here: keep them in float64"
        )
    differences = times.astype(np.float64) - origin.astype(np.float64)
    return in_32_bits("times since their origin", differences, NEARER)


def on_axes(positions, num_axes: int):
    """Returns positions on ``num_axes`` axes, ``[B, T, num_axes]``.

    Text, ``[B, T]``, has the same position on every axis.
    """
    if positions.ndim == 2:
        return jnp.stack([positions] * num_axes, axis=-1)
    if positions.shape[-1] != num_axes:
        raise ValueError(
            f"positions have shape {positions.shape}, but this encoding has {num_axes} position "
            f"axes: pass [B, T, {num_axes}], or [B, T] for text, or make it with other axes"
        )
    return positions


def one_axis(positions):
    """Returns ``positions``, which must have one axis."""
    if positions.ndim != 2:
        raise ValueError(
            f"positions have shape {positions.shape}, but this encoding knows one position axis; "
            "pass one axis of them, [B, T]"
        )
    return positions
