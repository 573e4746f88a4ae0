r"""PRoPE encodes the relative positions of cameras.

https://arxiv.org/abs/2507.10496

$$
o_m = D_m^{-1} \sum_n
\mathrm{softmax}_n\Big(\frac{q_m^\top D_m^{-1} D_n k_n}{\sqrt d}\Big) D_n v_n
$$

Each token has a block-diagonal matrix D. In half of the channels, cut into vectors of 4, its blocks
are ``P^-1``, where the 4 x 4 matrix ``P`` projects the world to the image of the token's camera. A
quarter of the channels rotates with the patch's column and a quarter with its row, as in RoPE. So
cameras matter only through ``P_m P_n^-1``, whatever the world axes. Overrides ``prepare``,
``rotate``, ``rotate_values`` and ``rotate_back``.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from posenc_jax.checks import check_multiple, count_of
from posenc_jax.encoding import Encoding
from posenc_jax.encodings.lib.angles import rotated, tables_of_text
from posenc_jax.encodings.rotary.frequencies.base import checked_base, geometric
from posenc_jax.lookup import check_width
from posenc_jax.pairs import Side
from posenc_jax.positions import on_axes
from posenc_jax.positions.cameras import PROJECTION, product
from posenc_jax.tokens import Tokens

CosSin = tuple[jax.Array, jax.Array]


class Transforms(NamedTuple):
    """Holds the transforms of each token, float32 arrays with the tokens along axis 1."""

    projection: jax.Array  # P, ``[B, T, 4, 4]``
    inverse: jax.Array  # the inverse of P, ``[B, T, 4, 4]``
    # Cosines and sines of time, column and row, each ``[B, T, 1, pairs]``; time may have no pairs.
    rotations: tuple[CosSin, CosSin, CosSin]


class PRoPE(Encoding):
    """Transforms queries, keys and values to world coordinates, and outputs back to the camera's.

    Positions come from ``posenc_jax.positions.cameras``, with intrinsics or, as in GTA
    (2310.10375), without. Text, ``[B, T]``, has the identity as its camera, and the same position
    on every other axis.

    With ``time_channels`` the first channels rotate with the world time, as in Time-RoPE, to
    reconstruct the 4D-RoPE of BulletTime (2512.05076). Its camera part is not published, and the
    order and the shares of the channels here could not be verified.

    Args:
      head_dim: number of channels in one head. Half of the channels that time leaves go to
        the camera, and a quarter each to column and row, so they must be a multiple of 8.
      time_channels: number of channels that rotate with time, even. If there are any, positions
        begin with the time.
      base: base of the frequencies of columns and rows.
      time_base: base of the frequencies of times.
    """

    def __init__(
        self,
        *,
        head_dim: int,
        time_channels: int = 0,
        base: float = 100.0,
        time_base: float = 10000.0,
    ):
        check_multiple(2, time_channels=time_channels)
        left = count_of("head_dim - time_channels", head_dim - time_channels)
        check_multiple(8, **{"head_dim - time_channels": left})
        self.head_dim = head_dim
        self.time_channels = time_channels
        self.base = checked_base(base)
        self.time_base = checked_base(time_base, "time_base")

    def prepare(self, tokens: Tokens, length):
        """Makes the ``Transforms`` of each token."""
        times, rows, columns, projection = self._parts(tokens.positions)
        quarter = (self.head_dim - self.time_channels) // 4
        rotations = (
            _rotation_of(times, self.time_channels, self.time_base),
            _rotation_of(columns, quarter, self.base),
            _rotation_of(rows, quarter, self.base),
        )
        return Transforms(projection, _inverse(projection), rotations)

    def rotate(self, x_BTHC, tokens: Tokens, side: Side):
        projection, inverse, rotations = tokens.made
        matrix = projection.swapaxes(-1, -2) if side.is_query else inverse
        return self._applied(x_BTHC, matrix, rotations)

    def rotate_values(self, v_BSKC, tokens: Tokens, side: Side):
        return self._applied(v_BSKC, tokens.made.inverse, tokens.made.rotations)

    def rotate_back(self, out_BTHC, tokens: Tokens, side: Side):
        back = [(cos, -sin) for cos, sin in tokens.made.rotations]
        return self._applied(out_BTHC, tokens.made.projection, back)

    def _parts(self, positions):
        """Returns times, rows and columns, each ``[B, T]``, and projections ``[B, T, 4, 4]``."""
        if positions.ndim == 2:
            # Added to zeros, so that on a mesh with Explicit axes it is sharded as positions are.
            zeros = jnp.zeros_like(positions, jnp.float32)[..., None, None]
            return positions, positions, positions, zeros + jnp.eye(4)[None, None]
        positions = on_axes(positions, (3 if self.time_channels else 2) + PROJECTION)
        *times, rows, columns = jnp.moveaxis(positions[..., :-PROJECTION], -1, 0)
        top = positions[..., -PROJECTION:].reshape(*positions.shape[:2], 3, 4)
        bottom = jnp.zeros_like(top[..., :1, :], jnp.float32).at[..., 3].set(1.0)
        projection = jnp.concatenate([top, bottom], axis=-2)
        return times[0] if times else rows, rows, columns, projection

    def _applied(self, x_BTHC, matrix_BT44, rotations):
        check_width(x_BTHC, head_dim=self.head_dim)
        time, quarter = self.time_channels, (self.head_dim - self.time_channels) // 4
        ends = np.array([time, time + 2 * quarter, time + 3 * quarter])
        times, camera, columns, rows = jnp.split(x_BTHC.astype(jnp.float32), ends, axis=-1)
        vectors = camera.reshape(*camera.shape[:-1], -1, 4).swapaxes(-1, -2)
        # Added to zeros, so that on a mesh with Explicit axes matrices lie where the vectors do.
        matrix_BT44 = matrix_BT44 + jnp.zeros_like(camera).sum((2, 3))[..., None, None]
        moved = product(matrix_BT44[:, :, None], vectors).swapaxes(-1, -2).reshape(camera.shape)
        times, columns, rows = map(_halves_rotated, (times, columns, rows), rotations)
        return jnp.concatenate([times, moved, columns, rows], axis=-1).astype(x_BTHC.dtype)


def _inverse(projection):
    """Returns the inverse of ``[[A, t], [0, 1]]``, in closed form.

    JAX's solvers do not run on a mesh with Explicit axes.
    """
    top, bottom = projection[..., :3, :], projection[..., 3:, :]
    a, b, c = (top[..., i, :3] for i in range(3))
    columns = jnp.stack([jnp.cross(b, c), jnp.cross(c, a), jnp.cross(a, b)], axis=-1)
    inverse = columns / (a * columns[..., 0]).sum(axis=-1)[..., None, None]
    shift = -product(inverse, top[..., 3:])
    return jnp.concatenate([jnp.concatenate([inverse, shift], axis=-1), bottom], axis=-2)


def _rotation_of(positions_BT, channels, base) -> CosSin:
    cos, sin = tables_of_text(positions_BT, geometric(channels, base))
    # Angles are negative, as in the released code: the direction matters for values and outputs.
    return cos, -sin


def _halves_rotated(x_BTHC, rotation: CosSin):
    a, b = jnp.split(x_BTHC, 2, axis=-1)
    return jnp.concatenate(rotated(a, b, *rotation), axis=-1)
