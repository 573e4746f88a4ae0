"""Positions of tokens on one axis."""

import jax
import jax.numpy as jnp


def text(length: int, start: int = 0) -> jax.Array:
    """``start, start + 1, ...``: int32 ``[1, T]``, shared by the batch."""
    return jnp.arange(start, start + length, dtype=jnp.int32)[None]


def packed(segment_ids) -> jax.Array:
    """Positions that restart at 0 with every run of equal ``segment_ids``; both int ``[B, T]``."""
    index = jnp.broadcast_to(jnp.arange(segment_ids.shape[-1]), segment_ids.shape)
    starts = segment_ids[:, 1:] != segment_ids[:, :-1]
    starts = jnp.pad(starts, ((0, 0), (1, 0)), constant_values=True)
    return index - jax.lax.cummax(jnp.where(starts, index, 0), axis=1)


def on_axes(positions, num_axes: int) -> jax.Array:
    """``[num_axes, B, T]``; text, ``[B, T]``, has the same position on every axis."""
    if positions.ndim == 2:
        return jnp.stack([positions] * num_axes)
    if len(positions) != num_axes:
        raise ValueError(
            f"positions have shape {positions.shape}, but this encoding has {num_axes} position "
            f"axes: pass [{num_axes}, B, T], or [B, T] for text, or make it with other axes"
        )
    return positions


def one_axis(positions):
    """``positions``, refused unless they have one axis."""
    if positions.ndim != 2:
        raise ValueError(
            f"positions have shape {positions.shape}, but this encoding knows one position axis; "
            "pass one axis of them, [B, T]"
        )
    return positions
