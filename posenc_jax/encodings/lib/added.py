"""Defines the base class of absolute schemes, which adds vectors to token embeddings."""

import abc
import warnings

import jax
import numpy as np

from posenc_jax.checks import has_floats, type_of
from posenc_jax.encoding import Encoding
from posenc_jax.tokens import Tokens

# Classes that this process has added to embeddings, or has warned about already.
_WITHOUT_WARNING: set[type] = set()


class Added(Encoding):
    """Adds the vector of its position to each token embedding, once at the input.

    Attributes:
      token_scale: factor of the token embeddings before the addition, or None.
    """

    token_scale: float | None = None

    @abc.abstractmethod
    def vectors(self, tokens: Tokens) -> jax.Array:
        """Returns the vectors of the tokens' positions, ``[B, T, D]``; ``B`` may be 1."""

    def embed(self, x_BTD, tokens: Tokens):
        _WITHOUT_WARNING.add(type(self))
        of_positions = self.vectors(tokens)
        rows, (B, T, D) = np.shape(x_BTD), of_positions.shape
        # Otherwise one token would be broadcast to the places of all.
        if not has_floats(x_BTD) or rows[1:] != (T, D) or B not in (1, rows[0]):
            raise ValueError(
                f"x has shape {rows} and type {type_of(x_BTD)}, but this encoding adds vectors of "
                f"{D} channels to {T} tokens of {B} sequences: pass floating-point embeddings of "
                f"tokens, [B, {T}, {D}], or make a part of them, here.part; the width is "
                "model_dim= of make"
            )
        x_BTD = x_BTD if self.token_scale is None else x_BTD * self.token_scale
        return x_BTD + of_positions.astype(x_BTD.dtype)

    def kept(self, made):
        """Returns what is kept; warns once if attention runs where no embeddings have positions."""
        if self.overrides("embed") and type(self) not in _WITHOUT_WARNING:
            _WITHOUT_WARNING.add(type(self))
            warnings.warn(
                f"{type(self).__name__} adds positions to token embeddings, which attend never "
                "sees: call x = here.embed(x) once after the token embedding, or "
                "attention has no positions",
                stacklevel=6,
            )
        return super().kept(made)
