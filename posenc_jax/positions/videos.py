"""Builds the positions of VideoRoPE, of the methods it is compared with, and of story time."""

from collections.abc import Sequence

import numpy as np

from posenc_jax.checks import check_positive, in_32_bits
from posenc_jax.positions.flat import NEARER
from posenc_jax.positions.segments import Placed, Segment, Vision, cells, check_segments, place


def videorope(segments: Sequence[Segment], *, delta: float = 2.0) -> Placed:
    """Places frames along the diagonal, their middles at their time: VideoRoPE (2502.05173).

    As in the released code, the middle is patch ``(n - 1) // 2``, and text continues one after the
    last frame's time. The first positions of a sequence may be negative. The paper is said to
    centre by n / 2 and to continue ``delta`` after the last frame; this could not be verified.

    Args:
      delta: how far apart frames are; 1 leaves the spacing (ATS) out.
    """
    check_positive(delta=delta)

    def block(vision, start):
        frame, row, column = cells(vision)
        time = start + delta * frame
        row = row - (vision.rows - 1) // 2
        column = column - (vision.columns - 1) // 2
        return np.stack([time, time + row, time + column], axis=-1)

    return place(segments, block, lambda grid, start: grid[..., 0].max() + 1, np.float32)


def spaced_frames(segments: Sequence[Segment], *, delta: float = 2.0) -> Placed:
    """Places segments as ``qwen2_vl`` does, with frames ``delta`` apart.

    This is VideoRoPE's spacing (ATS) without its diagonal.
    """
    check_positive(delta=delta)

    def block(vision, start):
        frame, row, column = cells(vision)
        return start + np.stack([delta * frame, row, column], axis=-1)

    return place(segments, block, dtype=np.float32)


def vanilla(segments: Sequence[Segment]) -> Placed:
    """Places every token at its index, on every axis, as RoPE does."""
    check_segments(segments)
    count = sum(segment.tokens for segment in segments)
    return Placed(np.tile(np.arange(count, dtype=np.int32)[None, :, None], 3), count)


def frame_time(segments: Sequence[Segment]) -> Placed:
    """Places all patches of a frame at its number, on every axis."""

    def block(vision, start):
        return np.stack([start + cells(vision)[0]] * 3, axis=-1)

    positions, following = place(segments, block)
    return Placed(np.repeat(positions[..., :1], 3, axis=-1), following)


def tad_rope(segments: Sequence[Segment]) -> Placed:
    """Places every token at its index plus the time of its frame: TAD-RoPE (2409.03206).

    A token of text counts as a frame, so text advances by 2 per token, but decoding from ``next``
    on advances by 1.
    """
    index, time = vanilla(segments), frame_time(segments)
    return Placed(index.positions + time.positions, index.next + time.next)


def story_time(
    times: Sequence[float], rows: int, columns: int, *, frames_per_second: float = 1.0
) -> np.ndarray:
    """Returns positions of frames at world ``times``, float32 ``[1, T, 3]`` (2512.05076).

    Times may stand still and run back, and keep their fractions. Rows and columns count from 0 in
    every frame; a token that stands for a time is a frame of one patch.

    Args:
      times: the time of each frame. Subtract the first one where they are too large for float32,
        which is an error.
      rows: rows of patches in a frame.
      columns: columns of patches in a frame.
      frames_per_second: factor of the times; the usual bases are for time in frames.
    """
    check_positive(frames_per_second=frames_per_second)
    times_F = np.asarray(times, np.float64)
    if times_F.ndim != 1:
        raise ValueError(f"times have shape {times_F.shape}, but must be [F], one for each frame")
    frame, row, column = cells(Vision(times_F.size, rows, columns))
    time = times_F[frame] * frames_per_second
    positions = np.stack([in_32_bits("times", time, NEARER), row, column], axis=-1)
    return positions.reshape(1, -1, 3).astype(np.float32)
