r"""DINOv3 rotates by rows and columns relative to the image's size, with random shifts in training.

https://arxiv.org/abs/2508.10104

$$
q_t^{(j)} \gets e^{2 \pi \mathrm{i}\, y_t\, b^{-4j/d}} q_t^{(j)}, \quad
q_t^{(d/4 + j)} \gets e^{2 \pi \mathrm{i}\, x_t\, b^{-4j/d}} q_t^{(d/4 + j)}, \qquad
j = 0, \dots, d/4 - 1
$$

Keys are rotated alike. y and x are the coordinates of a patch's centre, from -1 to 1. In training
all coordinates are shifted, scaled along each axis and scaled together, by numbers drawn once per
forward pass. Overrides ``prepare`` and ``rotate``.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp

from posenc_jax.checks import check_multiple, check_range
from posenc_jax.encodings.lib import axes
from posenc_jax.encodings.rotary.frequencies.by_axis import Spectra
from posenc_jax.encodings.rotary.rope import RoPE
from posenc_jax.tokens import Tokens


class DINOv3(RoPE):
    """Rotates half of the pairs by the normalised row and half by the normalised column.

    ``positions.centred_grid`` returns these coordinates, ``[B, T, 2]``. Class and register tokens
    are at (0, 0): they do not rotate, and training does not move them. A patch must not be at
    exactly (0, 0). Text, ``[B, T]``, has the same position on both axes.

    Args:
      head_dim: number of channels in one head, a multiple of 4.
      shift: largest random shift of coordinates in training, drawn for each axis. None or 0
        leaves it out.
      jitter: largest random factor (or divisor) of coordinates in training, drawn for each axis.
        None or 1 leaves it out.
      rescale: the same with one factor for both axes; 2 as released.
    """

    def __init__(
        self,
        *,
        head_dim: int,
        base: float = 100.0,
        layout: str = "half",
        shift: float | None = None,
        jitter: float | None = None,
        rescale: float | None = 2.0,
    ):
        check_multiple(4, head_dim=head_dim)  # An axis has half of it.
        sections = (head_dim // 4,) * 2
        halves: Any = dict(axes=axes.chunked(sections), frequencies=Spectra(sections))
        super().__init__(head_dim=head_dim, base=base, layout=layout, **halves)
        check_range(1, jitter=jitter, rescale=rescale)
        self.shift = shift or 0.0
        self.jitter = jitter or 1.0
        self.rescale = rescale or 1.0

    def moved(self, tokens: Tokens, length, key):
        if key is None:
            return tokens, length
        return tokens.moved_to(self.augmented(tokens.positions, key)), length

    def augmented(self, positions, key) -> jax.Array:
        """Returns shifted and scaled coordinates, as in a step of training."""
        shift_key, jitter_key, rescale_key = jax.random.split(key, 3)
        each_axis = (1, 1, *positions.shape[2:])

        def drawn(key, shape, most):
            return jax.random.uniform(key, shape, minval=-most, maxval=most)

        shift = drawn(shift_key, each_axis, self.shift)
        stretch = drawn(jitter_key, each_axis, math.log(self.jitter))
        stretch = stretch + drawn(rescale_key, (1,) * positions.ndim, math.log(self.rescale))
        moved = (positions.astype(jnp.float32) + shift) * jnp.exp(stretch)
        if positions.ndim == 2:
            return moved
        return jnp.where((positions == 0).all(axis=-1, keepdims=True), 0.0, moved)

    def tables(self, positions, inv_freq, attention_factor):
        return super().tables(positions, inv_freq * (2 * math.pi), attention_factor)
