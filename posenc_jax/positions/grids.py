"""Builds positions of time, row and column, as vision-language models count them."""

from collections.abc import Callable, Sequence

import numpy as np

from posenc_jax.checks import check_positive, check_sizes, count_of
from posenc_jax.positions.segments import Placed, Segment, Vision, cells, check_one_frame, place


def qwen2_vl(segments: Sequence[Segment]) -> Placed:
    """Places segments as M-RoPE does (2409.12191).

    A block of patches counts from its corner, and text continues one after the largest position.
    """
    return place(segments, lambda vision, start: start + np.stack(cells(vision), axis=-1))


def qwen25_vl(segments: Sequence[Segment], *, tokens_per_second: float) -> Placed:
    """Places segments as Qwen2.5-VL does (2502.13923): time is in seconds, scaled, rounded down.

    Everything else is as in ``qwen2_vl``. A video needs the ``times`` of its frames, an image none.

    Args:
      tokens_per_second: the scale, from the config of the checkpoint; the released ones differ from
        the default of their class.
    """
    check_positive(tokens_per_second=tokens_per_second)
    return place(segments, lambda vision, start: whole_ticks(vision, start, tokens_per_second))


def whole_ticks(vision: Vision, start: float, tokens_per_second: float) -> np.ndarray:
    """Returns the positions of a block's patches, the frames' scaled times rounded down."""

    def rounded_down(times):
        # transformers 4.49 multiplies the number of a frame by the seconds between two, and that by
        # the scale, both in float32; 4.57 truncates the seconds first.
        seconds = times.astype(np.float32)
        step = seconds[1] if len(seconds) > 1 else np.float32(0)
        even = np.arange(len(seconds), dtype=np.float32) * step
        if np.allclose(even, seconds, rtol=1e-6, atol=0):
            seconds = even
        return np.floor(seconds * np.float32(tokens_per_second)).astype(np.int64)

    return ticks(vision, start, rounded_down)


def ticks(vision: Vision, start: float, of_times: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Returns the positions of a block's patches; ``of_times`` converts seconds to positions."""
    frame, row, column = cells(vision)
    if vision.times is not None:
        frame = of_times(np.asarray(vision.times))[frame]
    elif vision.frames > 1:
        raise ValueError(f"this builder needs the times of a video's {vision.frames} frames")
    return start + np.stack([frame, row, column], axis=-1)


def qwen3_vl(segments: Sequence[Segment]) -> Placed:
    """Places segments as Qwen3-VL does (2511.21631): every frame is a block of its own.

    Everything else is as in ``qwen2_vl``. A frame comes after a time stamp, which is text:
    ``[Text(5), Vision(1, 8, 8), Text(5), ...]``.
    """

    def block(vision, start):
        patches = np.stack(cells(vision), axis=-1)
        check_one_frame(vision)
        return start + patches

    return place(segments, block)


def centred_grid(rows: int, columns: int, *, others: int = 0) -> np.ndarray:
    """Returns where the centres of an image's patches are, from -1 to 1, as DINOv3 has them.

    https://arxiv.org/abs/2508.10104

    Args:
      rows, columns: how many patches there are, 1 or more each.
      others: how many tokens come before them (a class token, registers), all at 0.

    Returns:
      Rows and columns, float32 ``[1, others + rows * columns, 2]``, row by row. A patch in the very
      centre is at 1e-30, which rotates no pair but distinguishes the patch from ``others``.
    """
    check_sizes(rows=rows, columns=columns)
    count_of("others", others, 0)
    centres = [(2 * np.arange(n) + 1) / n - 1 for n in (rows, columns)]
    grid = np.stack(np.meshgrid(*centres, indexing="ij"), axis=-1).reshape(-1, 2)
    grid[(grid == 0).all(axis=-1)] = 1e-30
    return np.concatenate([np.zeros((others, 2)), grid])[None].astype(np.float32)


def spatial_reset(segments: Sequence[Segment], *, stride: int = 1) -> Placed:
    """Places segments as MRoPE-I and MHRoPE do (2510.23095): rows and columns restart at 0.

    They restart in every block. Text continues as if rows and columns had started at the block's
    first time too.

    Args:
      stride: how far apart frames are in time, a whole number.
    """
    check_sizes(stride=stride)

    def block(vision, start):
        frame, row, column = cells(vision)
        return np.stack([start + stride * frame, row, column], axis=-1)

    def after(grid, start):
        return max(grid[..., 0].max(), start + grid[..., 1:].max()) + 1

    return place(segments, block, after)
