"""Position builders say where each token of a sequence is, for every scheme.

``text``, ``packed`` and ``since`` are for one axis. Builders named after models and papers take a
sequence of ``Text`` and ``Vision``, run on the host, in the data pipeline, and return ``Placed``:
the positions of time, row and column as NumPy, ``[1, T, 3]``, and the position at which text
continues. Concatenate positions along axis 0 for a batch. ``qwen25_omni`` and ``qwen3_omni`` also
take a ``Film``, a video with its audio. ``story_time`` returns the positions of one video alone,
and ``centred_grid`` of one image. ``cameras`` adds a camera to each token.
"""

from posenc_jax.positions.cameras import cameras
from posenc_jax.positions.circles import circle_rope
from posenc_jax.positions.films import qwen3_omni, qwen25_omni
from posenc_jax.positions.flat import on_axes, one_axis, packed, since, text
from posenc_jax.positions.grids import centred_grid, qwen2_vl, qwen3_vl, qwen25_vl, spatial_reset
from posenc_jax.positions.segments import Film, Placed, Segment, Text, Vision, segments_of
from posenc_jax.positions.videos import (
    frame_time,
    spaced_frames,
    story_time,
    tad_rope,
    vanilla,
    videorope,
)

__all__ = [
    "Film",
    "Placed",
    "Segment",
    "Text",
    "Vision",
    "cameras",
    "centred_grid",
    "circle_rope",
    "frame_time",
    "on_axes",
    "one_axis",
    "packed",
    "qwen2_vl",
    "qwen3_omni",
    "qwen3_vl",
    "qwen25_omni",
    "qwen25_vl",
    "segments_of",
    "since",
    "spaced_frames",
    "spatial_reset",
    "story_time",
    "tad_rope",
    "text",
    "vanilla",
    "videorope",
]
