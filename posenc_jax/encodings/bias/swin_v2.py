r"""Swin Transformer V2 adds a trained function of the distances along rows and columns.

https://arxiv.org/abs/2111.09883

$$
z_{mn} = s_h \cos(q_m, k_n) +
16\, \sigma\big(\mathrm{MLP}(\delta(\Delta y), \delta(\Delta x))_h\big), \qquad
\delta(t) = \frac{\mathrm{sign}(t)}{3} \log_2\Big(1 + \frac{8\, |t|}{w - 1}\Big)
$$

The window of training has sides w. The logarithm keeps distances in larger windows near the range
that was trained. The scale ``s_h = min(exp(l_h), 100)`` is trained too. Overrides ``rotate`` (which
normalises) and ``score``.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from posenc_jax.checks import check_choice, counts_of
from posenc_jax.encoding import Encoding
from posenc_jax.encodings.lib.by_distance import add_bias
from posenc_jax.encodings.lib.initial_values import normal
from posenc_jax.encodings.lib.one_by_one import sum_one_by_one
from posenc_jax.pairs import Pairs, Side
from posenc_jax.positions import on_axes
from posenc_jax.tokens import Tokens


class SwinV2(Encoding):
    """Adds a bias by row and column distance to scaled cosines between queries and keys.

    The scale of ``attend`` is not used. Positions are ``[B, T, 2]``, row and column; text,
    ``[B, T]``, has the same position on both axes.

    Args:
      grid: rows and columns of the window in training. It stays the same when the trained model
        runs on larger windows.
      hidden: width of the network.
      rngs: source of the initial values: N(0, 0.02) for the network, and a scale of 10.
    """

    per_layer = True

    def __init__(
        self, *, num_heads: int, rngs: nnx.Rngs, grid: tuple[int, int] = (8, 8), hidden: int = 512
    ):
        self.grid = counts_of("grid", grid)
        check_choice((2,), **{"number of sides of grid": len(self.grid)})

        self.inner_kernel = normal(rngs, 2, hidden)
        self.inner_bias = nnx.Param(jnp.zeros(hidden))
        self.outer_kernel = normal(rngs, hidden, num_heads)
        self.log_scale = nnx.Param(jnp.full((num_heads,), math.log(10.0)))

    def rotate(self, x_BTHC, tokens: Tokens, side: Side):
        x = x_BTHC.astype(jnp.float32)
        # A vector of 0 stays 0, and has a gradient.
        squares = jnp.maximum((x**2).sum(-1, keepdims=True), 1e-24)
        return (x * jax.lax.rsqrt(squares)).astype(x_BTHC.dtype)

    def score(self, logits_BHTS, pairs: Pairs):
        log_scale_H = pairs.of_heads(self.log_scale[...]).astype(jnp.float32)
        scale_H = jnp.minimum(jnp.exp(log_scale_H), 100.0) / pairs.scale
        bias_BHTS = 16 * jax.nn.sigmoid(self._network(pairs))
        return add_bias(logits_BHTS * scale_H[None, :, None, None], bias_BHTS)

    def _network(self, pairs):
        """Sums the hidden units, float32 ``[B, H, T, S]``."""
        spaced = []
        for axis, side in enumerate(self.grid):
            q_along, k_along = (_along(x, axis) for x in (pairs.q_tokens, pairs.k_tokens))
            spaced.append(_spaced(q_along[:, :, None] - k_along[:, None], side))
        units = (
            self.inner_kernel[...].astype(jnp.float32).T,
            self.inner_bias[...].astype(jnp.float32),
            pairs.of_heads(self.outer_kernel[...].T).astype(jnp.float32).T,
        )

        return sum_one_by_one(_unit, units, *spaced)


def _unit(kernel_2, bias, outer_H, rows_BTS, columns_BTS):
    """Returns what one hidden unit adds, ``[B, H, T, S]``."""
    hidden_BTS = jax.nn.relu(kernel_2[0] * rows_BTS + kernel_2[1] * columns_BTS + bias)
    return outer_H[None, :, None, None] * hidden_BTS[:, None]


def _along(tokens, axis):
    """Returns positions on one axis, ``[B, T]``; text has the same on both."""
    positions = tokens.positions
    return positions if positions.ndim == 2 else on_axes(positions, 2)[..., axis]


def _spaced(distance, side: int):
    """Returns the signed logarithm of a distance, which is 1 at 7/8 of a window."""
    units = distance.astype(jnp.float32) * np.float32(8 / max(side - 1, 1))
    return jnp.sign(units) * jnp.log1p(jnp.abs(units)) / np.float32(math.log(8))
