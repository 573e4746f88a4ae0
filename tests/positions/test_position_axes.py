"""Tests several position axes, of which text is one case, and builders of positions."""

import functools

import common
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import posenc_jax
from posenc_jax import positions as builders
from posenc_jax.encodings.rotary.riflex import riflex
from posenc_jax.positions import Text, Vision, text

# An image at the very start: VideoRoPE's first positions are negative.
SEQUENCE = [Vision(2, 3, 2), Text(4), Vision(1, 2, 4), Text(4)]
B, T = 2, sum(segment.tokens for segment in SEQUENCE)
TOKEN_IDS = np.random.default_rng(0).integers(0, common.VOCAB, (B, T)).astype(np.int32)


# Encodings


@pytest.mark.parametrize("name", ["axial_rope", "mrope"])
def test_more_axes_than_the_encoding_has(name):
    encoding = common.build(name)
    axes = max(encoding.axes) + 1
    positions = np.zeros((1, 4, axes + 1), np.int32)
    common.refuses(f"positions.*T, {axes}]", lambda: encoding.at(positions))


# Decoding


def test_generating_after_a_video():
    """Text goes on after the video, in rows of unequal length, as in one forward pass."""
    model, count = common.build_model("videorope"), 4
    rows = [builders.videorope([*SEQUENCE[:-1], Text(n)]) for n in (4, 1)]
    lengths = [item.positions.shape[1] for item in rows]
    positions = np.zeros((B, T + count, 3), rows[0].positions.dtype)
    for row, item in enumerate(rows):
        after = item.next + np.arange(count)
        positions[row, : lengths[row]] = item.positions[0]
        positions[row, lengths[row] : lengths[row] + count] = after[:, None]
    given = dict(max_new_tokens=count, lengths=lengths, positions=positions[:, :T])
    output = posenc_jax.generate(model, TOKEN_IDS, jax.random.key(0), **given)
    ids = np.pad(TOKEN_IDS, ((0, 0), (0, count)))
    for row, length in enumerate(lengths):
        ids[row, length : length + count] = output[row]
    likeliest = np.asarray(common.forward(model, ids, positions)).argmax(-1)
    for row, length in enumerate(lengths):
        np.testing.assert_array_equal(likeliest[row, length - 1 :][:count], output[row])


# Builders


BUILDERS = [
    builders.qwen2_vl,
    functools.partial(builders.qwen25_vl, tokens_per_second=2),
    builders.qwen3_vl,
    builders.spatial_reset,
    builders.videorope,
    builders.spaced_frames,
    builders.vanilla,
    builders.frame_time,
]


@pytest.mark.parametrize("build", BUILDERS)
def test_a_sequence_of_text(build):
    positions, following = build([Text(3), Text(4)])
    np.testing.assert_array_equal(positions, np.tile(np.arange(7)[None, :, None], 3))
    assert following == 7


def test_the_start_of_a_video():
    """Two frames of 3 x 2 patches, in front of everything, are written out."""
    time, row, column = [0] * 6 + [0.5] * 6, [0, 0, 1, 1, 2, 2] * 2, [0, 1] * 6
    positions, following = builders.spaced_frames(SEQUENCE[:1], delta=0.5)
    np.testing.assert_array_equal(positions[0], np.stack([time, row, column], axis=-1))
    assert following == 3
    # Those of VideoRoPE, whose golden arrays begin with text, are below 0.
    positions, following = builders.videorope(SEQUENCE[:2], delta=0.5)
    shift = np.stack([np.zeros(12), np.subtract(time, 1), time], axis=-1)
    expected = np.stack([time, row, column], axis=-1) + shift
    np.testing.assert_array_equal(positions[0, :12], expected)
    assert following == 5.5


def test_frames_at_their_seconds():
    """Frames may be of unequal length; their times are rounded down only once they are scaled."""
    video = Vision(4, 1, 1, times=(0.0, 0.4, 0.9, 3.2))
    positions, following = builders.qwen25_vl([Text(2), video], tokens_per_second=2.5)
    np.testing.assert_array_equal(positions[0, :, 0], [0, 1, 2, 3, 4, 10])
    assert following == 11


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (0.2, {21: 105, 42: 210, 47: 235}),
        (0.4, {21: 210, 42: 420, 47: 470}),
        (0.6, {7: 105, 14: 210, 28: 420, 33: 495, 56: 840}),
        (0.7, {26: 454}),
    ],
)
def test_even_frames_are_rounded_as_in_transformers(step, expected):
    """It multiplies number, step and 25 a second in this order; 5.24 gives these positions."""
    video = Vision(60, 1, 1, times=tuple(step * n for n in range(60)))
    positions, _ = builders.qwen25_vl([video], tokens_per_second=25)
    assert {n: int(positions[0, n, 0]) for n in expected} == expected


@pytest.mark.parametrize("build", [*BUILDERS[:6], builders.frame_time])
def test_ruler_tokens_are_beside_their_patches(build):
    """Rulers are at every second row and column, and one is past the rows of a wide image."""
    image = Vision(1, 3, 5, ruler=2)
    assert list(image.marks) == [0, 2, 4] and image.tokens == 18
    with_ruler, after = build([Text(4), image, Text(2)])
    without, following = build([Text(4), Vision(1, 3, 5), Text(2)])
    np.testing.assert_array_equal(np.delete(with_ruler, [4, 5, 6], axis=1), without)
    assert after == following
    marks, grid = with_ruler[0, 4:7], without[0, 4:19].reshape(3, 5, 3)
    if build is builders.frame_time:
        np.testing.assert_array_equal(marks, np.full((3, 3), 4))
        return
    np.testing.assert_array_equal(marks[:, 0], grid[0, [0, 2, 4], 0])
    np.testing.assert_array_equal(marks[:2, 1], grid[[0, 2], 0, 1])
    np.testing.assert_array_equal(marks[:, 2], grid[0, [0, 2, 4], 2])


def test_story_time():
    times = [0.5, 0.75, 0.75, -1.25]
    positions = builders.story_time(times, 2, 3, frames_per_second=24.0)
    assert positions.dtype == np.float32
    np.testing.assert_array_equal(positions[0, :, 0], np.repeat([12, 18, 18, -30], 6))
    np.testing.assert_array_equal(positions[0, :, 1], [0, 0, 0, 1, 1, 1] * 4)
    np.testing.assert_array_equal(positions[0, :, 2], [0, 1, 2] * 8)


def test_large_times_since_an_origin():
    """Unix seconds are one position in float32, and nanoseconds fit no int32."""
    seconds = np.array([[1_700_000_000.25, 1_700_000_010.5]])
    since = builders.since(seconds, 1_700_000_000)
    np.testing.assert_array_equal(since, np.float32([[0.25, 10.5]]))
    assert since.dtype == np.float32
    nanoseconds = np.uint64(2**63) + np.array([[1, 2_000_000_000]], np.uint64)
    since = builders.since(nanoseconds, np.uint64(2**63))
    np.testing.assert_array_equal(since, np.int32([[1, 2_000_000_000]]))
    assert since.dtype == np.int32
    origins = np.array([[0], [1_700_000_000]])
    of_rows = builders.since([[5, 9], [1_700_000_001, 1_700_000_002]], origins)
    np.testing.assert_array_equal(of_rows, [[5, 9], [1, 2]])
    for bad in (seconds, nanoseconds):
        common.refuses("positions", lambda bad=bad: common.build("rope").at(bad))
    for of_type in (float, np.int32, jnp.int32):
        assert text(of_type(4), start=of_type(7)).tolist() == [[7, 8, 9, 10]]


# What is refused, by a word of the error

IDS = [9, 5, 7, 7, 6, 8, 8, 8, 8, 8, 8, 9]
LONGER = dict(first_repeat=70, length=60)
NO_TIMES = [Vision(3, 1, 1)]


def read(**grids):
    return builders.segments_of(IDS, image_token=7, video_token=8, **grids)


UNIX = [Vision(2, 1, 1, times=(0.0, 1.7e9))]
BAD = {
    "tokens_per_second=nan": lambda: builders.qwen25_omni([Text(2)], tokens_per_second=np.nan),
    "seconds_per_chunk=inf": lambda: builders.qwen25_omni([Text(2)], seconds_per_chunk=np.inf),
    "frames_per_second=0": lambda: builders.story_time([0.5], 1, 1, frames_per_second=0),
    "segment_ids are int64 of shape": lambda: builders.packed(np.array([1, 2])),
    "segment_ids are float": lambda: builders.packed([[0.5, 1.0]]),
    "position 3400000000": lambda: builders.qwen25_vl(UNIX, tokens_per_second=2),
    "float32": lambda: builders.since(np.float32([1.7e9 + 60]), 1.7e9),
    "segment_ids: 1099511627776": lambda: builders.packed(np.array([[2**40, 1]])),
    "tokens": lambda: Text(0),
    "times=": lambda: Vision(3, 1, 1, times=(0.0, 2.0, 1.5)),
    "frames=3": lambda: builders.qwen3_vl(NO_TIMES),
    "times": lambda: builders.qwen25_vl(NO_TIMES, tokens_per_second=2),
    "delta": lambda: builders.videorope(SEQUENCE, delta=0),
    "start=2147483646": lambda: text(4, start=2**31 - 2),
    "image": lambda: read(image_grids=[(1, 4, 4)], video_grids=[(3, 4, 2)]),
    "video_grids": lambda: read(image_grids=[(1, 2, 4)], video_grids=[(2, 4, 2)]),
    "seconds_per_frame=0.5": lambda: read(video_grids=[(3, 4, 2)], seconds_per_frame=0.5),
    "length=60": lambda: riflex(common.build("rope"), **LONGER).at(text(3)),
}


@pytest.mark.parametrize("word", BAD)
def test_what_cannot_be_is_refused(word):
    common.refuses(word, BAD[word])


@pytest.mark.parametrize("build", [*BUILDERS, builders.qwen25_omni, builders.tad_rope])
def test_segments_are_a_list_of_one_or_more(build):
    for segments in ([], Text(3), [3], (segment for segment in SEQUENCE)):
        common.refuses("segments=", lambda segments=segments: build(segments))
