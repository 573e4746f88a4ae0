"""Describes parts of a sequence, text, images and videos, and how builders go through them."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from posenc_jax.checks import LONGEST, check_divides, check_sizes, count_of
from posenc_jax.positions.flat import NEARER


@dataclasses.dataclass(frozen=True)
class Text:
    """Describes consecutive tokens of text.

    Tokens that mark the borders of a vision block are text too.

    Attributes:
      tokens: how many there are.
    """

    tokens: int

    def __post_init__(self):
        check_sizes(tokens=self.tokens)


@dataclasses.dataclass(frozen=True)
class Vision:
    """Describes a block of patches, frame after frame, row after row: an image or a video.

    Attributes:
      frames: frames of the grid as the decoder sees it, after patches are merged.
      rows: rows of that grid.
      columns: columns of that grid.
      times: seconds of each frame, counted from the block's start, for a builder that reads them.
      ruler: distance in patches between ruler tokens (2510.03230), or None for no ruler. Ruler
        tokens are text, coordinates written out, and come before the patches: one for every
        ``ruler`` rows or columns, at the first frame's time and at the row and the column of that
        number, so that every patch has one nearby. The paper's interval is said to be 8; this, and
        the exact positions of the paper's tokens, could not be verified.
    """

    frames: int
    rows: int
    columns: int
    times: tuple[float, ...] | None = None
    ruler: int | None = None

    def __post_init__(self):
        check_sizes(frames=self.frames, rows=self.rows, columns=self.columns, ruler=self.ruler)
        if self.times is not None:
            _check_times(self.times, self.frames)

    @property
    def marks(self) -> range:
        """Returns the numbers of the rows and columns that have a ruler token."""
        return range(0, max(self.rows, self.columns) if self.ruler else 0, self.ruler or 1)

    @property
    def tokens(self) -> int:
        """Returns the number of tokens, with the ruler's."""
        return len(self.marks) + self.frames * self.rows * self.columns


@dataclasses.dataclass(frozen=True)
class Film:
    """Describes a video and its audio, whose tokens are interleaved by time, for TMRoPE.

    Two tokens come before them and two after, which mark the borders of the video and of the audio.
    Audio alone is ``Text``: every token of it is one further on every axis.

    Attributes:
      video: the frames, with their ``times``.
      audio: how many tokens the audio has.
    """

    video: Vision
    audio: int

    def __post_init__(self):
        check_sizes(audio=self.audio)
        video = self.video
        if not isinstance(video, Vision) or video.times is None or video.ruler is not None:
            raise ValueError(f"video={video} of Film must be a Vision with times, and no ruler")

    @property
    def tokens(self) -> int:
        """Returns the number of tokens, marks of the borders included."""
        return self.video.tokens + self.audio + 4


Segment = Text | Vision | Film


class Placed(NamedTuple):
    """Holds the positions of the tokens of a sequence, and of the token that follows.

    Attributes:
      positions: int32 or float32 ``[1, T, 3]``, time, row and column.
      next: the position of the token that follows, on every axis; the one after it is one further.
    """

    positions: np.ndarray
    next: int | float


Block = Callable[[Any, float], np.ndarray]


def place(
    segments: Sequence[Segment],
    block: Block,
    after: Callable[[np.ndarray, float], float] = lambda grid, start: grid.max() + 1,
    dtype: type[np.number] = np.int32,
) -> Placed:
    """Places text one token after another, and every other block where ``block`` says.

    Args:
      block: takes a Vision, or a Film, and the next free position, and returns the positions of the
        patches, ``[frames, rows, columns, 3]``, or of the film's tokens, ``[1, 1, tokens, 3]``.
      after: takes the positions of a block and its start, and returns the next free position.
      dtype: the type of the positions.

    Raises:
      ValueError: there is no segment, or a position leaves the range of its type, as times of a
        clock do.
    """
    check_segments(segments)
    parts: list[np.ndarray] = []
    start: float = 0
    for segment in segments:
        if isinstance(segment, Text):
            text = start + np.arange(segment.tokens)
            parts.append(np.stack([text] * 3, axis=-1))
            start = start + segment.tokens
        else:
            grid = block(segment, start)
            if isinstance(segment, Vision):
                parts.append(grid[0, 0, 0] + np.outer(segment.marks, (0, 1, 1)))
            parts.append(grid.reshape(-1, 3))
            start = after(grid, start)
    positions = np.concatenate(parts)
    limit = 2**31 if np.issubdtype(dtype, np.integer) else LONGEST
    if too_large := positions[~(abs(positions) < limit)].tolist():
        raise ValueError(f"position {too_large[0]} is not below {limit}: {NEARER}")
    return Placed(
        positions.astype(dtype)[None], start.item() if isinstance(start, np.generic) else start
    )


def check_segments(segments: Sequence[Segment]) -> None:
    """Checks that ``segments`` are a list of one or more parts of a sequence."""
    is_list = isinstance(segments, Sequence) and len(segments) > 0
    if not is_list or not all(isinstance(segment, Segment) for segment in segments):
        raise ValueError(
            f"segments={segments!r} must be a list of Text, Vision or Film, one or more: "
            "[Text(5), Vision(1, 4, 4)]"
        )


def cells(vision: Vision) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the frame, row and column of every patch, each ``[frames, rows, columns]``."""
    if not isinstance(vision, Vision):
        raise ValueError(
            f"this builder does not accept {vision}: give it Text and Vision; Film is for "
            "qwen25_omni and qwen3_omni"
        )
    frame, row, column = np.indices((vision.frames, vision.rows, vision.columns))
    return frame, row, column


def check_one_frame(vision: Vision) -> None:
    """Checks that a block is an image, for builders that place no time within a block."""
    if vision.frames > 1:
        raise ValueError(
            f"this builder takes one frame in a block, not a video of frames={vision.frames}: give "
            "a Vision(1, rows, columns) for each frame, with the text between the frames"
        )


def segments_of(
    ids,
    *,
    image_token: int,
    video_token: int,
    image_grids: Sequence[Sequence[int]] = (),
    video_grids: Sequence[Sequence[int]] = (),
    merge: int = 2,
    seconds_per_frame: Sequence[float] | None = None,
    frame_by_frame: bool = False,
) -> list[Segment]:
    """Returns the segments of token ids ``[T]``, as Qwen's processors write them without padding.

    Args:
      ids: the token ids.
      image_token: the id that marks an image's patches.
      video_token: the id that marks a video's patches.
      image_grids: frames, rows and columns of each image in patches before they are merged, in the
        order in which the images come.
      video_grids: the same for each video.
      merge: rows, and columns, of patches that become one token.
      seconds_per_frame: seconds between the frames of each video, where its times matter.
      frame_by_frame: whether every frame of a video is a block of its own (Qwen3-VL).

    Raises:
      ValueError: ids and grids disagree.
    """
    for name, grids in (("image_grids", image_grids), ("video_grids", video_grids)):
        if any(np.shape(grid) != (3,) for grid in grids):
            raise ValueError(
                f"{name}={grids} must be a list with frames, rows and columns of each block: "
                "[(1, 8, 8)]"
            )
    if seconds_per_frame is not None and np.shape(seconds_per_frame) != (len(video_grids),):
        raise ValueError(
            f"seconds_per_frame={seconds_per_frame} must be a list of {len(video_grids)} numbers, "
            "one for each of video_grids"
        )
    ids, merge = np.asarray(ids), count_of("merge", merge)
    if ids.ndim != 1 or ids.dtype.kind not in "iu":
        raise ValueError(
            f"ids must be one sequence of whole numbers, [T], not {ids.dtype} of shape {ids.shape}"
        )
    images, videos = ([_merged(grid, merge) for grid in g] for g in (image_grids, video_grids))
    if frame_by_frame:  # the text between the frames has their times written out
        videos = [Vision(1, v.rows, v.columns) for v in videos for _ in range(v.frames)]
    elif seconds_per_frame is not None:
        videos = [
            dataclasses.replace(video, times=tuple(n * float(step) for n in range(video.frames)))
            for video, step in zip(videos, seconds_per_frame, strict=True)
        ]
    waiting = {image_token: ("image", images), video_token: ("video", videos)}
    segments: list[Segment] = []
    at = 0
    while at < len(ids):
        token = int(ids[at])
        if token in waiting:
            name, visions = waiting[token]
            count = visions[0].tokens if visions else 0
            run = int((ids[at : at + max(count, 1)] == token).sum())
            if run != count:
                raise ValueError(
                    f"{name}_grids give the {name} at index {at} {count} tokens, merged, but ids "
                    f"have {run} there"
                )
            segments.append(visions.pop(0))
        else:
            run = next((i for i, t in enumerate(ids[at:]) if int(t) in waiting), len(ids) - at)
            segments.append(Text(run))
        at += segments[-1].tokens
    for name, visions in waiting.values():
        if visions:
            raise ValueError(f"{name}_grids have {len(visions)} more than ids have {name}s")
    return segments


def _merged(grid, merge) -> Vision:
    frames, rows, columns = (int(n) for n in grid)
    check_divides(merge=merge, rows=rows)
    check_divides(merge=merge, columns=columns)
    return Vision(frames, rows // merge, columns // merge)


def _check_times(times, frames):
    is_finite = len(times) == frames and all(map(math.isfinite, times))
    if not is_finite or any(later < earlier for earlier, later in itertools.pairwise(times)):
        raise ValueError(
            f"times={times} must be {frames} finite numbers of seconds, one for each frame, that "
            "do not decrease; for times that may decrease use story_time"
        )
