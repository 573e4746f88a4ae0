"""The third dial of the rotary family, and of every scheme: position builders.

``text`` and ``packed`` are for one axis, and run on the device. The others take a sequence of
``Text`` and ``Vision`` and run on the host, in the data pipeline: they give the positions of time,
row and column as NumPy, ``[3, 1, T]``, and where the text goes on after them. A batch is some of
them concatenated along axis 1.
"""

from posenc_jax.rotary.positions.flat import on_axes, one_axis, packed, text
from posenc_jax.rotary.positions.grids import qwen2_vl, qwen3_vl, qwen25_vl, spatial_reset
from posenc_jax.rotary.positions.segments import Placed, Text, Vision, segments_of
from posenc_jax.rotary.positions.videos import (
    frame_time,
    spaced_frames,
    story_time,
    tad_rope,
    vanilla,
    videorope,
)

__all__ = [
    "Placed",
    "Text",
    "Vision",
    "frame_time",
    "on_axes",
    "one_axis",
    "packed",
    "qwen2_vl",
    "qwen3_vl",
    "qwen25_vl",
    "segments_of",
    "spaced_frames",
    "spatial_reset",
    "story_time",
    "tad_rope",
    "text",
    "vanilla",
    "videorope",
]
