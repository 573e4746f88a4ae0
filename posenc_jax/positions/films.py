"""Builds TMRoPE's positions: of text, images, videos, audio, and videos with their audio.

https://arxiv.org/abs/2503.20215 (Qwen2.5-Omni), and Qwen3-Omni
"""

from collections.abc import Sequence

import numpy as np

from posenc_jax.fields import count_of
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
    size = int(tokens_per_second * seconds_per_chunk)
    count_of("tokens_per_second * seconds_per_chunk", size)

    def block(segment, start):
        if isinstance(segment, Vision):
            return whole_ticks(segment, start, tokens_per_second)
        video = whole_ticks(segment.video, 0, tokens_per_second).reshape(-1, 3)
        order = [_chunks(times, size) for times in (video[:, 0], range(segment.audio))]
        film = _interleaved(video, segment.audio, order, start + 1)
        last = film.max() + 1
        return _marked([start, start], film, [last, last])

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
      ValueError: a video has no times.
    """

    def scaled(times):
        return times * tokens_per_second

    def block(segment, start):
        if isinstance(segment, Vision):
            return ticks(segment, start, scaled)
        video = ticks(segment.video, 0, scaled).reshape(-1, 3)
        order = [video[:, 0], range(segment.audio)]
        film = _interleaved(video, segment.audio, order, start + 2)
        last = film.max() + 1
        return _marked([start, start + 1], film, [last, last + 1])

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


def _interleaved(video_T3, audio: int, order, start):
    """Returns the positions of video and audio, sorted by ``order``, ``[T, 3]``."""
    audio_T3 = np.repeat(np.arange(audio)[:, None], 3, axis=1)
    by_order = np.argsort(np.concatenate(order), kind="stable")
    return start + np.concatenate([video_T3, audio_T3])[by_order]


def _marked(before, film_T3, after):
    """Returns a film between its marks, in the form of a block, ``[1, 1, T, 3]``."""
    first, last = (np.repeat(np.asarray(marks)[:, None], 3, axis=1) for marks in (before, after))
    return np.concatenate([first, film_T3, last])[None, None]
