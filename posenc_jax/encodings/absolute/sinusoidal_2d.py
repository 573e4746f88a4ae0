r"""Adds sinusoidal absolute positions on a grid to the token embeddings.

https://arxiv.org/abs/2104.02057 (MoCo v3), https://arxiv.org/abs/2111.06377 (MAE)

$$
x_t \gets x_t + [S(r_t) ; S(c_t)], \qquad
S(p) = [\sin(p\, \theta) ; \cos(p\, \theta)], \quad \theta_i = b^{-2iA/D}
$$

The channels are split evenly between the A position axes, here row r and column c, the first axis
first; each part has the sines and then the cosines of its axis. Overrides ``embed``.
"""

from posenc_jax.checks import check_divides, check_multiple
from posenc_jax.encodings.absolute.sinusoidal import sinusoids
from posenc_jax.encodings.lib.added import Added
from posenc_jax.encodings.rotary.frequencies.base import checked_base
from posenc_jax.positions import on_axes
from posenc_jax.tokens import Tokens


class Sinusoidal2D(Added):
    """Adds sines and cosines of the position along each axis, once at the input.

    MAE puts the column before the row: pass positions in that order to get its table. Text,
    ``[B, T]``, has the same position on every axis, so its vector is ``model_dim / num_axes``
    channels repeated, with every ``num_axes``-th frequency of ``sinusoidal``.

    Args:
      model_dim: width of the residual stream, a multiple of ``2 * num_axes``.
      num_axes: number of position axes; positions are ``[B, T, num_axes]``, or ``[B, T]``.
      base: base of the frequencies; the slowest wavelength is about ``2 pi base`` positions.
      token_scale: factor of the token embeddings before the addition; 1 in MAE.
    """

    def __init__(
        self, *, model_dim: int, num_axes: int = 2, base: float = 10000.0, token_scale: float = 1.0
    ):
        # Every axis has as many sines as cosines.
        check_multiple(2, model_dim=model_dim)
        check_divides(num_axes=num_axes, **{"model_dim / 2": model_dim // 2})
        self.model_dim = model_dim
        self.num_axes = num_axes
        self.base = checked_base(base)
        self.token_scale = token_scale

    def vectors(self, tokens: Tokens):
        positions_BTA = on_axes(tokens.positions, self.num_axes)
        table = sinusoids(positions_BTA, self.model_dim // self.num_axes, self.base, "half")
        return table.reshape(*positions_BTA.shape[:2], self.model_dim)
