r"""Adds sinusoidal absolute positions to the token embeddings.

https://arxiv.org/abs/1706.03762

$$
x_t \gets \sqrt D\, x_t + P[p_t], \qquad
P[p]_{2i} = \sin(p\, b^{-2i/D}), \quad P[p]_{2i+1} = \cos(p\, b^{-2i/D})
$$

D is the width of the residual stream, and b the base. Overrides ``embed``.
"""

import math

import jax
import jax.numpy as jnp

from posenc_jax.checks import check_choice, check_multiple
from posenc_jax.encodings.lib.added import Added
from posenc_jax.encodings.lib.angles import cos_sin
from posenc_jax.encodings.rotary.frequencies.base import checked_base, geometric
from posenc_jax.positions import one_axis
from posenc_jax.tokens import Tokens


def sinusoids(
    positions, channels: int, base: float = 10000.0, layout: str = "interleaved"
) -> jax.Array:
    """Returns the sinusoids of ``positions [...]``, float32 ``[..., channels]``.

    The layout "interleaved" is sin, cos, sin, cos, ... (the paper), and "half" is all sines and
    then all cosines (Transformer-XL). fairseq and tensor2tensor also use halves, but with exponents
    ``i / (D / 2 - 1)`` for sinusoid i, which are not offered.
    """
    cos, sin = cos_sin(positions[..., None], geometric(channels, base))
    if layout == "half":
        return jnp.concatenate([sin, cos], axis=-1)
    return jnp.stack([sin, cos], axis=-1).reshape(*positions.shape, channels)


class Sinusoidal(Added):
    """Adds sines and cosines of the position, once at the input.

    Args:
      model_dim: width of the residual stream, even.
      base: base of the frequencies, as in the equation.
      layout: order of sines and cosines, "interleaved" or "half", as in ``sinusoids``.
      token_scale: factor of the token embeddings before the addition; by default
        ``sqrt(model_dim)``, as in the paper, which many implementations leave out.
    """

    def __init__(
        self,
        *,
        model_dim: int,
        base: float = 10000.0,
        layout: str = "interleaved",
        token_scale: float | None = None,
    ):
        check_multiple(2, model_dim=model_dim)  # sines and cosines come in pairs
        check_choice(("half", "interleaved"), layout=layout)
        self.model_dim = model_dim
        self.base = checked_base(base)
        self.layout = layout
        self.token_scale = math.sqrt(model_dim) if token_scale is None else token_scale

    def vectors(self, tokens: Tokens):
        return sinusoids(one_axis(tokens.positions), self.model_dim, self.base, self.layout)
