"""Positions of time, row and column, as vision-language models count them."""

import numpy as np

from posenc_jax.rotary.positions.segments import Placed, cells, place


def qwen2_vl(segments) -> Placed:
    """M-RoPE (2409.12191): a block counts on from its corner, and text from its farthest patch."""
    return place(segments, lambda vision, start: start + np.stack(cells(vision)))


def qwen25_vl(segments, *, tokens_per_second: float) -> Placed:
    """Qwen2.5-VL (2502.13923): as ``qwen2_vl``, but time is in seconds, scaled and rounded down.

    ``tokens_per_second`` is the checkpoint's, from its config: the released ones differ from the
    default of the class. A video needs the ``times`` of its frames, an image none.
    """

    def block(vision, start):
        frame, row, column = cells(vision)
        if vision.times is not None:
            # In float32, as transformers 4.49 has it. (4.57 truncates the seconds first.)
            seconds = np.asarray(vision.times, np.float32) * np.float32(tokens_per_second)
            frame = np.floor(seconds).astype(np.int64)[frame]
        elif vision.frames > 1:
            raise ValueError(f"qwen25_vl needs the times of a video's {vision.frames} frames")
        return start + np.stack([frame, row, column])

    return place(segments, block)


def qwen3_vl(segments) -> Placed:
    """Qwen3-VL (2511.21631): as ``qwen2_vl``, every frame a block of its own.

    A frame comes after a time stamp, which is text: ``[Text(5), Vision(1, 8, 8), Text(5), ...]``.
    """
    for segment in segments:
        if getattr(segment, "frames", 1) > 1:
            raise ValueError(
                f"qwen3_vl has a video's {segment.frames} frames in blocks of one, each after a "
                "time stamp in text: give a Text and a Vision(1, rows, columns) for each"
            )
    return qwen2_vl(segments)


def spatial_reset(segments, *, stride: int = 1) -> Placed:
    """MRoPE-I and MHRoPE (2510.23095): rows and columns count from 0 in every block.

    Frames are ``stride`` apart, and text counts on as if the block had started at its time on
    every axis.
    """

    def block(vision, start):
        frame, row, column = cells(vision)
        return np.stack([start + stride * frame, row, column])

    def after(grid, start):
        return max(grid[0].max(), start + grid[1:].max()) + 1

    return place(segments, block, after)
