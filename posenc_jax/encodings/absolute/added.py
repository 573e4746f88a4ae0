"""Adds the vectors of positions to token embeddings, for every absolute scheme."""

import jax
import jax.numpy as jnp


def added(x_BTD: jax.Array, of_positions: jax.Array) -> jax.Array:
    """Returns token embeddings with the vectors of their positions added, in their own type.

    Args:
      x_BTD: token embeddings, floating-point.
      of_positions: ``[B, T, D]``, one vector for each token; ``B`` may be 1.

    Raises:
      ValueError: the embeddings are not one vector for each token, as wide as those of positions.
        Without the check one token would be copied to the places of all.
    """
    rows, (B, T, D) = jnp.shape(x_BTD), of_positions.shape
    if rows[1:] != (T, D) or B not in (1, rows[0]):
        raise ValueError(
            f"x has shape {rows}, but this encoding adds vectors of {D} channels to {T} tokens of "
            f"{B} sequences: pass token embeddings [B, {T}, {D}], or the tokens of these alone "
            "(tokens.part); the width is model_dim= of make"
        )
    if not jnp.issubdtype(x_BTD.dtype, jnp.floating):
        raise ValueError(f"x must be token embeddings, floating-point, not {x_BTD.dtype}")
    return x_BTD + of_positions.astype(x_BTD.dtype)
