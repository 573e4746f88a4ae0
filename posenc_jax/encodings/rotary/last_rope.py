"""Defines the base class of rotary encodings that rotate the last channels of each head."""

import jax
import jax.numpy as jnp

from posenc_jax.encodings.rotary.frequencies.base import Frequencies
from posenc_jax.encodings.rotary.rope import RoPE
from posenc_jax.lookup import check_width


class LastRoPE(RoPE):
    """Rotates the last channels of each head, where RoPE rotates the first.

    The arguments are as in ``RoPE``; channels that form a pair are neighbours by default.
    """

    def __init__(
        self,
        *,
        head_dim: int,
        base: float = 10000.0,
        frequencies: Frequencies | None = None,
        rotary_dim: int | None = None,
        layout: str = "interleaved",
    ):
        super().__init__(
            head_dim=head_dim,
            base=base,
            frequencies=frequencies,
            rotary_dim=rotary_dim,
            layout=layout,
        )

    def rotate_by(self, x_BTHC: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
        check_width(x_BTHC, head_dim=self.head_dim)
        still, moving = jnp.split(x_BTHC, [self.head_dim - self.rotary_dim], axis=-1)
        moving = self.rotate_pairs(moving, cos, sin)
        return jnp.concatenate([still, moving], axis=-1) if still.shape[-1] else moving
