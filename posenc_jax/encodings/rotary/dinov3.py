"""DINOv3 turns by rows and columns that are shares of the image, moved a little in training.

https://arxiv.org/abs/2508.10104

Half of the channel pairs turn by ``2 pi y base ** (-4 j / head_dim)``, and half by the same of x,
where y and x are the place of a patch's centre, from -1 to 1. In training all of them are shifted,
stretched along each axis and stretched together, by numbers that are drawn once for a forward pass.
Overrides ``place``, ``prepare`` and ``rotate``.
"""

import math

import jax
import jax.numpy as jnp

from posenc_jax.encodings.rotary import axes
from posenc_jax.encodings.rotary.axis_frequencies import Spectra
from posenc_jax.encodings.rotary.rope import RoPE


class DINOv3(RoPE):
    """Turns half of the pairs by the row, half by the column, of normalised coordinates.

    ``positions.centred_grid`` makes them, ``[B, T, 2]``, row and column, with class and register
    tokens at (0, 0), where nothing turns and training moves nothing. A patch must not be at exactly
    (0, 0). Text, ``[B, T]``, is at the same place on both.

    Args:
      head_dim: channels of one head, a multiple of 4.
      base: see ``RoPE``.
      layout: see ``RoPE``.
      shift: in training coordinates move by up to so much, differently on each axis. None or 0
        moves none.
      jitter: in training they are multiplied by up to so much, or divided, differently on each
        axis. None or 1 changes none.
      rescale: the same with one number for both axes; 2 as released.
    """

    adapts = False

    def __init__(
        self,
        *,
        head_dim: int,
        base: float | jax.Array = 100.0,
        layout: str = "half",
        shift: float | None = None,
        jitter: float | None = None,
        rescale: float | None = 2.0,
    ):
        if head_dim % 4:
            raise ValueError(f"head_dim={head_dim} must be a multiple of 4: an axis has half of it")
        sections = (head_dim // 4,) * 2
        super().__init__(
            head_dim=head_dim,
            base=base,
            frequencies=Spectra(sections),
            axes=axes.chunked(sections),
            layout=layout,
        )
        if shift is not None and not shift >= 0:
            raise ValueError(f"shift={shift!r} must be 0 or more, or None")
        for name, value in (("jitter", jitter), ("rescale", rescale)):
            if value is not None and not value >= 1:
                raise ValueError(f"{name}={value!r} must be 1 or more, or None")
        self.shift = shift or 0.0
        self.jitter = jitter or 1.0
        self.rescale = rescale or 1.0

    def place(self, positions, key=None, length=None):
        if key is None:
            return positions
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

    def _tables(self, positions, inv_freq, attention_factor):
        return super()._tables(positions, inv_freq * (2 * math.pi), attention_factor)
