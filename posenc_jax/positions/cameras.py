"""Builds positions of image patches with the cameras that see them."""

import jax
import jax.numpy as jnp
import numpy as np

from posenc_jax.checks import as_array, check_choice, check_divides, checked_positions

# How many numbers a projection has: the upper three rows of [[A, t], [0, 1]].
PROJECTION = 12


def cameras(
    positions, viewmats, intrinsics=None, *, image_size: tuple[int, int] | None = None
) -> jax.Array:
    """Returns positions followed by the camera of each token, float32 ``[B, T, A + 12]``.

    The 12 numbers are the upper three rows, one after another, of the matrix that takes the world
    to the camera's image. They are computed on the device, under ``jax.jit`` too, so cameras may be
    trained.

    Args:
      positions: rows and columns of patches, ``[B, T, 2]``, or world times, rows and columns,
        ``[B, T, 3]``, as from ``story_time``; ``B`` may be 1.
      viewmats: world to camera, ``[B, F, 4, 4]``, ending in the row (0, 0, 0, 1). Each camera has
        ``T / F`` consecutive tokens.
      intrinsics: camera to image in pixels, ``[B, F, 3, 3]``, ending in the row (0, 0, 1). The
        image is then measured in shares of its width and height from its centre. None leaves them
        out, as GTA (2310.10375) does.
      image_size: height and width in pixels, where there are intrinsics.

    Raises:
      ValueError: a shape does not fit the others, a number is not finite, or a matrix has another
        last row.
    """
    positions = checked_positions(positions)
    if positions.ndim != 3 or positions.shape[-1] not in (2, 3):
        raise ValueError(
            f"positions have shape {positions.shape}, but must be [B, T, 2], rows and columns, or "
            "[B, T, 3], times, rows and columns"
        )
    if (intrinsics is None) != (image_size is None):
        raise ValueError(f"image_size={image_size} and intrinsics go together: pass both or none")
    viewmats = _checked_matrices("viewmats", viewmats, 4)
    T, F = positions.shape[1], viewmats.shape[1]
    check_divides(viewmats=F, tokens=T)
    projections, batches = viewmats[..., :3, :], {positions.shape[0], viewmats.shape[0]}
    if image_size is not None:
        intrinsics = _checked_matrices("intrinsics", intrinsics, 3)
        batches.add(intrinsics.shape[0])
        check_choice((1, F), **{"number of cameras of intrinsics": intrinsics.shape[1]})
        if np.shape(image_size) != (2,) or min(image_size) <= 0:
            raise ValueError(f"image_size={image_size} must be (height, width) in pixels")
    if len(batches - {1}) > 1:
        raise ValueError(
            f"positions, viewmats and intrinsics are for {sorted(batches)} sequences, but B must "
            "be the same in all, or 1"
        )
    if image_size is not None:
        height, width = image_size
        to_shares = np.array([[1 / width, 0, -0.5], [0, 1 / height, -0.5], [0, 0, 1]], np.float32)
        projections = product(product(to_shares[None, None], intrinsics), projections)
    # jnp.repeat does not take cameras that lie on several devices of a mesh with Explicit axes.
    of_tokens = projections.reshape(-1, F, PROJECTION)[:, :, None] + jnp.zeros((1, 1, T // F, 1))
    parts = positions.astype(jnp.float32), of_tokens.reshape(-1, T, PROJECTION)
    # Adding these zeros gives both the same batch and, on a mesh with Explicit axes, sharding.
    zeros = sum(jnp.zeros_like(x[..., :1]) for x in parts)
    return jnp.concatenate([x + zeros for x in parts], axis=-1)


def product(a, b) -> jax.Array:
    """Returns ``a @ b``, in float32 on every device."""
    # Accelerators would round float32 factors to fewer bits.
    return jnp.matmul(a, b, precision="highest")


def _checked_matrices(name, matrices, size) -> jax.Array:
    """Returns matrices as float32, once their shape and, if known, their numbers are checked."""
    matrices, last = as_array(name, matrices), np.eye(size)[-1]
    is_right = matrices.ndim == 4 and matrices.shape[2:] == (size, size)
    if is_right and not isinstance(matrices, jax.core.Tracer):
        is_right = np.isfinite(matrices).all() and (np.asarray(matrices)[..., -1, :] == last).all()
    if not is_right:
        raise ValueError(
            f"{name} must be finite, [B, F, {size}, {size}], not {matrices.shape}, and each matrix "
            f"end in the row {tuple(map(int, last))}"
        )
    return jnp.asarray(matrices, jnp.float32)
