"""Builds positions of images on a circle around the line that text follows."""

import math
from collections.abc import Sequence

import numpy as np

from posenc_jax.positions.segments import Placed, Segment, cells, check_one_frame, place

# Two directions at right angles to each other and to (1, 1, 1), as (time, row, column).
_ALONG_COLUMNS = np.array([0.0, 1.0, -1.0]) / math.sqrt(2)
_ALONG_ROWS = np.array([2.0, -1.0, -1.0]) / math.sqrt(6)


def circle_rope(
    segments: Sequence[Segment],
    *,
    radius: float = 10.0,
    radius_scale: float | None = None,
    angle_share: float = 0.5,
    grid_share: float = 0.0,
) -> Placed:
    """Places the patches of an image on a circle at right angles to text: Circle-RoPE (2505.16416).

    Text counts along (1, 1, 1), so all patches on the circle are equally far from a token of text.
    Positions are fractional and may be negative; text continues one after the largest of them.
    In the paper's alternation (AGE) even layers use the circle and odd layers the grid of
    ``qwen2_vl``: give a model the axes of both, and encodings ``OnAxes`` (see
    docs/how-to/positions.md).

    Args:
      segments: the parts of the sequence. The released code projects only the first frame of a
        video, so give each frame as an image here, which follows text or another image.
      radius: radius of the circle, in positions; 10 as released.
      radius_scale: replaces ``radius`` by this factor times the largest coordinate of each image,
        counted from its middle ("auto-k" in the released code).
      angle_share: weight of the angle at which a patch is seen from the image's middle, stretched
        to a full turn; the rest of the angle follows from the reading order. 0.5 as released.
      grid_share: weight of the flat grid, laid into the circle's plane ("dff_rate" in the released
        code); 0 as released.

    Raises:
      ValueError: a block has several frames, or a share is not within 0..1.
    """

    def block(vision, start):
        _, row, column = cells(vision)
        check_one_frame(vision)
        y, x = row - (vision.rows - 1) / 2, column - (vision.columns - 1) / 2
        angle = angle_share * _full_turn(np.arctan2(y, x))
        angle += (1 - angle_share) * 2 * math.pi * np.arange(x.size).reshape(x.shape) / x.size
        far = radius if radius_scale is None else radius_scale * max(x.max(), y.max())
        across = (1 - grid_share) * far * np.cos(angle) + grid_share * x
        down = (1 - grid_share) * far * np.sin(angle) + grid_share * y
        return start + across[..., None] * _ALONG_COLUMNS + down[..., None] * _ALONG_ROWS

    return place(segments, block, dtype=np.float32)


def _full_turn(angle):
    """Returns angles shifted and stretched to the range from 0 to a full turn."""
    least, span = angle.min(), np.ptp(angle)
    return (angle - least) * (2 * math.pi / span) if span else angle
