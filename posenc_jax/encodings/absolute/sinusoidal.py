"""Sinusoidal absolute positions.

https://arxiv.org/abs/1706.03762

``P[p, 2i] = sin(p / base^(2i/D))``, ``P[p, 2i+1] = cos(same)``, added to the token embeddings,
which are first multiplied by ``sqrt(D)``. Overrides ``embed``.
"""

import math

import jax.numpy as jnp

from posenc_jax.encoding import Encoding
from posenc_jax.rotary.angles import cos_sin
from posenc_jax.rotary.frequencies import geometric


def sinusoids(positions, channels: int, base: float = 10000.0, layout: str = "interleaved"):
    """float32 ``[..., channels]`` sinusoids of ``positions [...]``.

    ``layout`` "interleaved" gives sin, cos, sin, cos, ... (the paper), "half" all sines and then
    all cosines (Transformer-XL, fairseq).
    """
    cos, sin = cos_sin(positions[..., None], geometric(channels, base))
    if layout == "half":
        return jnp.concatenate([sin, cos], axis=-1)
    return jnp.stack([sin, cos], axis=-1).reshape(*positions.shape, channels)


class Sinusoidal(Encoding):
    """Sines and cosines of the position, added once at the input.

    Args:
      model_dim: width of the residual stream, even.
      base: see the equation.
      layout: see ``sinusoids``.
      token_scale: what the token embeddings are multiplied by before the addition. Default:
        ``sqrt(model_dim)``, as in the paper and often forgotten.
    """

    shift_invariant = False

    def __init__(
        self,
        *,
        model_dim: int,
        base: float = 10000.0,
        layout: str = "interleaved",
        token_scale: float | None = None,
    ):
        if model_dim % 2:
            raise ValueError(f"model_dim={model_dim} must be even: sines and cosines come in pairs")
        if layout not in ("half", "interleaved"):
            raise ValueError(f"layout={layout!r} must be 'half' or 'interleaved'")
        self.model_dim = model_dim
        self.base = base
        self.layout = layout
        self.token_scale = math.sqrt(model_dim) if token_scale is None else token_scale

    def embed(self, x_BTD, positions):
        table = sinusoids(positions, self.model_dim, self.base, self.layout)
        return x_BTD * self.token_scale + table.astype(x_BTD.dtype)
