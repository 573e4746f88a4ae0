"""Positions of VideoRoPE, of what it is compared with, and of story time."""

import math
from collections.abc import Sequence

import numpy as np

from posenc_jax.rotary.positions.segments import Placed, Vision, cells, place


def videorope(segments, *, delta: float = 2.0) -> Placed:
    """VideoRoPE (2502.05173): frames lie along the diagonal, their middles at their time.

    As in the released code: frames are ``delta`` apart (ATS, 1 is without), the middle is patch
    ``(n - 1) // 2`` (DL), and text goes on one after the last frame's time. So the first positions
    of a sequence may be negative. The paper is said to centre by n / 2, and to go on ``delta``
    after.
    """
    _check_delta(delta)

    def block(vision, start):
        frame, row, column = cells(vision)
        time = start + delta * frame
        row = row - (vision.rows - 1) // 2
        column = column - (vision.columns - 1) // 2
        return np.stack([time, time + row, time + column])

    return place(segments, block, lambda grid, start: grid[0].max() + 1, np.float32)


def spaced_frames(segments, *, delta: float = 2.0) -> Placed:
    """VideoRoPE's spacing (ATS) without its diagonal: ``qwen2_vl`` with frames ``delta`` apart."""
    _check_delta(delta)

    def block(vision, start):
        frame, row, column = cells(vision)
        return start + np.stack([delta * frame, row, column])

    return place(segments, block, dtype=np.float32)


def vanilla(segments) -> Placed:
    """RoPE's positions: the index of the token, on every axis."""
    count = sum(segment.tokens for segment in segments)
    return Placed(np.tile(np.arange(count, dtype=np.int32), (3, 1, 1)), count)


def frame_time(segments) -> Placed:
    """The number of the frame on every axis: all patches of a frame are in one place."""

    def block(vision, start):
        return np.stack([start + cells(vision)[0]] * 3)

    positions, following = place(segments, block)
    return Placed(np.repeat(positions[:1], 3, axis=0), following)


def tad_rope(segments) -> Placed:
    """TAD-RoPE: the token's index plus its frame's time.

    A token of text is a frame, so text counts in twos, which decoding after ``next`` does not.
    """
    index, time = vanilla(segments), frame_time(segments)
    return Placed(index.positions + time.positions, index.next + time.next)


def story_time(
    times: Sequence[float], rows: int, columns: int, *, frames_per_second: float = 1.0
) -> np.ndarray:
    """Time-RoPE (2512.05076): float32 ``[3, 1, T]`` of frames at world ``times``.

    Times may stand still and run back, and are never rounded. Rows and columns count from 0 in
    every frame; a token that asks for a time is a frame of one patch.

    Args:
      times: of each frame.
      rows, columns: of patches in a frame.
      frames_per_second: what the times are multiplied by; the usual bases are for time in frames.
    """
    if len(times) == 0 or not all(map(math.isfinite, times)):
        raise ValueError(
            f"times={list(times)} must be finite numbers, the world's time of each frame"
        )
    frame, row, column = cells(Vision(len(times), rows, columns))
    time = np.asarray(times, np.float64)[frame] * frames_per_second
    return np.stack([time, row, column]).reshape(3, 1, -1).astype(np.float32)


def _check_delta(delta):
    if not 0 < delta < math.inf:
        raise ValueError(f"delta={delta!r} must be a number above 0: how far apart frames are")
