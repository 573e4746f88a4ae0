"""PRoPE, cameras as relative positions.

https://arxiv.org/abs/2507.10496

Let P_c, 4 x 4, take the world to the image of camera c. Attention between views multiplies, in a
share of the channels cut into vectors of 4, queries by ``P^T``, keys and values by ``P^-1`` and
outputs by ``P``, so that all depends on ``P_i P_j^-1`` alone and on no choice of world axes. The
other channels turn with the column and the row of the patch, as RoPE's do, values and outputs too.

Values and outputs are what no hook of ``Encoding`` sees, so this is no scheme of the registry but
functions around attention, of any implementation::

    transforms = prope.prepare(positions, viewmats, intrinsics, head_dim=64, image_size=(384, 640))
    q, k, v = (
        prope.to_query(transforms, q), prope.to_key(transforms, k), prope.to_value(transforms, v)
    )
    out = attend(Encoding(), q, k, v, Tokens(positions), causal=False)
    out = prope.to_output(transforms, out)

With ``time_channels`` it is a reconstruction [infer] of the 4D-RoPE of BulletTime (2512.05076),
whose camera part is not published: channels are split [time | camera | column | row], and the
first turn with the world time as in Time-RoPE.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from posenc_jax.encoding import check_positions
from posenc_jax.rotary.angles import cos_sin
from posenc_jax.rotary.frequencies import geometric

CosSin = tuple[jax.Array, jax.Array]


class Transforms(NamedTuple):
    """What happens to each token: float32 arrays with the tokens along axis 1.

    Attributes:
      projection, inverse: P and its inverse, ``[B, T, 4, 4]``.
      turns: cosines and sines of time, column and row, each ``[B, T, 1, pairs]``; time may have no
        pairs.
    """

    projection: jax.Array
    inverse: jax.Array
    turns: list[CosSin]


def prepare(
    positions,
    viewmats,
    intrinsics=None,
    *,
    head_dim: int,
    image_size: tuple[int, int] | None = None,
    time_channels: int = 0,
    base: float = 100.0,
    time_base: float = 10000.0,
) -> Transforms:
    """Once per forward.

    Args:
      positions: int or float32 ``[2, B, T]`` rows and columns of patches, or ``[3, B, T]`` world
        times, rows and columns; ``B`` may be 1.
      viewmats: world to camera, ``[B, F, 4, 4]``. Each camera has ``T / F`` consecutive tokens.
      intrinsics: camera to image in pixels, ``[B, F, 3, 3]``, which count as shares of the image,
        with 0 at its centre. None leaves them out (GTA, 2310.10375).
      head_dim: channels of one head. After those of time, half go to the camera and a quarter each
        to column and row, so that the rest must be a multiple of 8.
      image_size: height and width in pixels, for ``intrinsics``.
      time_channels: channels that turn with time, an even number.
      base, time_base: of the frequencies of columns and rows, and of times.
    """
    positions = check_positions(positions)
    num_axes, rest = 3 if time_channels else 2, head_dim - time_channels
    if time_channels % 2 or time_channels < 0 or rest < 8 or rest % 8:
        raise ValueError(
            f"time_channels={time_channels} must be even, and leave a multiple of 8 of "
            f"head_dim={head_dim}"
        )
    if positions.ndim != 3 or len(positions) != num_axes:
        raise ValueError(
            f"positions have shape {positions.shape}, but time_channels={time_channels} needs "
            f"[{num_axes}, B, T]: {'times, ' if time_channels else ''}rows and columns"
        )
    if (intrinsics is None) != (image_size is None):
        raise ValueError(f"image_size={image_size} and intrinsics go together: pass both or none")
    _check_cameras(viewmats, intrinsics)
    T, cameras = positions.shape[-1], viewmats.shape[1]
    if T % cameras:
        raise ValueError(
            f"viewmats has {cameras} cameras, which cannot share {T} tokens: each must have as many"
        )
    projection = jnp.asarray(viewmats, jnp.float32)
    if image_size is not None:
        projection = _product(_lifted(intrinsics, *image_size), projection)
    projection, inverse = (
        jnp.repeat(matrix, T // cameras, axis=1) for matrix in (projection, _inverse(projection))
    )
    *times, rows, columns = positions
    turns = [
        _turn_of(times[0] if times else rows, time_channels, time_base),
        _turn_of(columns, rest // 4, base),
        _turn_of(rows, rest // 4, base),
    ]
    return Transforms(projection, inverse, turns)


def to_query(transforms: Transforms, q_BTHC) -> jax.Array:
    """Queries in, queries out."""
    return _applied(q_BTHC, transforms.projection.swapaxes(-1, -2), transforms.turns)


def to_key(transforms: Transforms, k_BTHC) -> jax.Array:
    """Keys in, keys out."""
    return _applied(k_BTHC, transforms.inverse, transforms.turns)


def to_value(transforms: Transforms, v_BTHC) -> jax.Array:
    """Values in, values out."""
    return _applied(v_BTHC, transforms.inverse, transforms.turns)


def to_output(transforms: Transforms, out_BTHC) -> jax.Array:
    """What attention gave in, the same as its queries' cameras see it out."""
    back = [(cos, -sin) for cos, sin in transforms.turns]
    return _applied(out_BTHC, transforms.projection, back)


def _check_cameras(viewmats, intrinsics):
    if viewmats.ndim != 4 or viewmats.shape[2:] != (4, 4):
        raise ValueError(f"viewmats must be [B, F, 4, 4], not {viewmats.shape}")
    expected = (*viewmats.shape[:2], 3, 3)
    if intrinsics is not None and intrinsics.shape != expected:
        raise ValueError(
            f"intrinsics of shape {intrinsics.shape} do not fit viewmats of shape "
            f"{viewmats.shape}: they must be {expected}"
        )


def _lifted(intrinsics, height, width):
    """Intrinsics in shares of the image, ``[B, F, 4, 4]``."""
    to_shares = np.array([[1 / width, 0, -0.5], [0, 1 / height, -0.5], [0, 0, 1]], np.float32)
    shares = _product(to_shares[None, None], jnp.asarray(intrinsics, jnp.float32))
    lifted = jnp.pad(shares, [(0, 0), (0, 0), (0, 1), (0, 1)])
    return lifted.at[..., 3, 3].set(1.0)


def _inverse(projection):
    """Of ``[[A, t], [0, 1]]``, in closed form: on a mesh of Explicit axes there is no solver."""
    top, bottom = projection[..., :3, :], projection[..., 3:, :]
    a, b, c = (top[..., i, :3] for i in range(3))
    columns = jnp.stack([jnp.cross(b, c), jnp.cross(c, a), jnp.cross(a, b)], axis=-1)
    inverse = columns / (a * columns[..., 0]).sum(axis=-1)[..., None, None]
    shift = -_product(inverse, top[..., 3:])
    return jnp.concatenate([jnp.concatenate([inverse, shift], axis=-1), bottom], axis=-2)


def _turn_of(positions_BT, channels, base) -> CosSin:
    cos, sin = cos_sin(positions_BT[..., None], geometric(channels, base))
    # Backwards, as the released code turns; of values and outputs it can be seen.
    return cos[:, :, None], -sin[:, :, None]


def _applied(x_BTHC, matrix_BT44, turns):
    time, column, _ = (2 * cos.shape[-1] for cos, _ in turns)
    if x_BTHC.shape[-1] != time + 4 * column:
        raise ValueError(
            f"the transforms were made for head_dim={time + 4 * column}, but heads have "
            f"{x_BTHC.shape[-1]} channels"
        )
    ends = np.array([time, time + 2 * column, time + 3 * column])
    times, camera, columns, rows = jnp.split(x_BTHC.astype(jnp.float32), ends, axis=-1)
    vectors = camera.reshape(*camera.shape[:-1], -1, 4).swapaxes(-1, -2)
    seen = _product(matrix_BT44[:, :, None], vectors).swapaxes(-1, -2).reshape(camera.shape)
    times, columns, rows = map(_turned, (times, columns, rows), turns)
    return jnp.concatenate([times, seen, columns, rows], axis=-1).astype(x_BTHC.dtype)


def _turned(x_BTHC, turn: CosSin):
    cos, sin = turn
    a, b = jnp.split(x_BTHC, 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


def _product(a, b):
    # Accelerators would round float32 factors to fewer bits.
    return jnp.matmul(a, b, precision="highest")
