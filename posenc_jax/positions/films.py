"""Builds TMRoPE's positions: of text, images, videos, audio, and videos with their audio.

https://arxiv.org/abs/2503.20215 (Qwen2.5-Omni), https://arxiv.org/abs/2509.17765 (Qwen3-Omni)
"""

from collections.abc import Sequence

import numpy as np

from posenc_jax.checks import check_positive, count_of
from posenc_jax.positions.grids import ticks, whole_ticks
from posenc_jax.positions.segments import Placed, Segment, Vision, place


def qwen25_omni(
    segments: Sequence[Segment], *, tokens_per_second: float = 25, seconds_per_chunk: float = 2.0
) -> Placed:
    """Places segments as Qwen2.5-Omni does (2503.20215): time is scaled and rounded down.

    Segments other than ``Film`` are placed as by ``qwen25_vl``. In a film video and audio start at
    the same position, and a chunk of video comes before the same chunk of audio. The two marks at
    the start of a film share one position, and so do those at its end.

    Args:
      segments: the parts of the sequence. A video needs the ``times`` of its frames.
      tokens_per_second: positions, and audio tokens, in a second.
      seconds_per_chunk: the length of a chunk.

    Raises:
      ValueError: a chunk is shorter than one position, or a video has no times.
    """
    check_positive(tokens_per_second=tokens_per_second, seconds_per_chunk=seconds_per_chunk)
    size = int(tokens_per_second * seconds_per_chunk)
    count_of("tokens_per_second * seconds_per_chunk", size)

    def block(segment, start):
        if isinstance(segment, Vision):
            return whole_ticks(segment, start, tokens_per_second)
        video = whole_ticks(segment.video, 0, tokens_per_second).reshape(-1, 3)
        order = [_chunks(times, size) for times in (video[:, 0], range(segment.audio))]
        return _interleaved(video, segment.audio, order, start, marks=(0, 0))

    return place(segments, block)


def qwen3_omni(segments: Sequence[Segment], *, tokens_per_second: float) -> Placed:
    """Places segments as Qwen3-Omni does: time is scaled and keeps its fractions.

    Rows and columns are as in ``qwen2_vl``, and text after a video continues at a fraction. In a
    film the tokens of video and audio are in the order of their times, video first at equal times,
    and the marks are counted like text.

    Args:
      segments: the parts of the sequence. A video needs the ``times`` of its frames.
      tokens_per_second: positions in a second, from the config of the checkpoint.

    Raises:
      ValueError: a video has no times, or ``tokens_per_second`` is not positive.
    """
    check_positive(tokens_per_second=tokens_per_second)

    def scaled(times):
        return times * tokens_per_second

    def block(segment, start):
        if isinstance(segment, Vision):
            return ticks(segment, start, scaled)
        video = ticks(segment.video, 0, scaled).reshape(-1, 3)
        order = [video[:, 0], range(segment.audio)]
        return _interleaved(video, segment.audio, order, start, marks=(0, 1))

    return place(segments, block, dtype=np.float32)


def _chunks(times, size):
    """Returns the number of the chunk that each token is in, as the released code counts them.

    A token can be only one chunk further than the token before it, so the first tokens after a
    longer gap are assigned to earlier chunks than their own.
    """
    numbers, number = [], 0
    for time in times:
        number += bool(time >= (number + 1) * size)
        numbers.append(number)
    return numbers


def _interleaved(video_T3, audio: int, order, start, marks: tuple[int, int]):
    """Returns the positions of a film from ``start`` on, in the form of a block, ``[1, 1, T, 3]``.

    Video and audio are sorted by ``order``. ``marks`` says how far each of the two marks before
    them, and of the two after them, is from the first.
    """
    marks_23 = np.outer(marks, (1, 1, 1))
    tokens_T3 = np.concatenate([video_T3, np.outer(range(audio), (1, 1, 1))])
    film_T3 = start + (marks[1] + 1) + tokens_T3[np.argsort(np.concatenate(order), kind="stable")]
    return np.concatenate([start + marks_23, film_T3, film_T3.max() + 1 + marks_23])[None, None]
