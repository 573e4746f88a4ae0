"""Runs a scheme on some of the position axes, so that layers can read different positions.

Circle-RoPE (2505.16416) uses positions on a circle in even layers and M-RoPE's grid in odd ones:
give the model positions with the axes of both, and ``Layers`` of two encodings that each read their
own axes. Overrides ``moved``.
"""

import jax.numpy as jnp

from posenc_jax.checks import count_of, counts_of
from posenc_jax.encoding import Encoding
from posenc_jax.encodings.lib.wrapper import Wrapper
from posenc_jax.tokens import Tokens


class OnAxes(Wrapper):
    """Gives another scheme only some of the axes of positions ``[B, T, A]``.

    Positions of text, ``[B, T]``, stay as they are.

    Args:
      over: the scheme beneath.
      axes: the axes that ``over`` reads, counted from 0, in the order in which it reads them.

    Raises:
      ValueError: ``axes`` has a negative number, or names an axis that positions lack.
    """

    def __init__(self, over: Encoding | str, *, axes: tuple[int, ...]):
        super().__init__(over)
        self.axes = counts_of("axes", axes, 0)

    def moved(self, tokens: Tokens, length, key):
        positions = tokens.positions
        if positions.ndim == 3:
            count_of("the largest of axes", max(self.axes), 0, positions.shape[-1] - 1)
            chosen = [positions[..., axis] for axis in self.axes]
            tokens = tokens.moved_to(chosen[0] if len(chosen) == 1 else jnp.stack(chosen, axis=-1))
        return super().moved(tokens, length, key)
