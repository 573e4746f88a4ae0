"""Tests the experiment on video, on a few digits made up."""

import common
import jax
import numpy as np
import pytest
from tiny_runs import study

from experiments.running.points import Point
from experiments.studies.multimodal.needle_videos import Source, draw
from posenc_jax import positions
from posenc_jax.positions import Text, Vision

SIDE, COUNT = 8, 40


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return common.images_of_four(tmp_path_factory.mktemp("data"), COUNT, SIDE)


def experiment(data, workdir, scheme="videorope"):
    task = dict(data=data, background="noise", patch=SIDE, test_digits=10)
    here = {f"task__{key}": value for key, value in task.items()}
    return study("video", workdir, schemes=scheme, **here)


def source(frames=5):
    digits = np.random.default_rng(0).integers(1, 100, (12, SIDE, SIDE)).astype(np.uint8)
    clip = np.full((frames, 3 * SIDE, 3 * SIDE), 100, np.uint8)
    clip += 2 * np.arange(frames, dtype=np.uint8)[:, None, None]
    return Source(digits, np.arange(12) % 3, (clip,))


def cards(video):
    """Returns the frame, row and column of patches that are wholly within a border of white."""
    frames, height, width = video.shape
    grid = video.reshape(frames, height // SIDE, SIDE, width // SIDE, SIDE).swapaxes(2, 3)
    edges = [grid[..., 0, :], grid[..., -1, :], grid[..., 0], grid[..., -1]]
    white = np.all([(edge == 255).all(axis=-1) for edge in edges], axis=0)
    return np.argwhere(white), grid


def test_two_cards_of_different_digits_that_far_apart():
    made = source()
    gaps = np.arange(200) % 6 + 1
    batch = draw(made, np.random.default_rng(0), 200, 7, gaps)
    corners, first = set(), set()
    for i, video in enumerate(batch["video"]):
        actual, grid = cards(video)
        (one, *at_one), (two, *at_two) = actual
        assert one == batch["earlier"][i] and two == one + gaps[i]
        for frame, at, label in ((one, at_one, "other"), (two, at_two, "label")):
            inside = grid[frame, *at][1:-1, 1:-1]
            (number,) = np.flatnonzero((made.digits[:, 1:-1, 1:-1] == inside).all(axis=(1, 2)))
            assert made.labels[number] == batch[label][i]
        assert batch["label"][i] != batch["other"][i]
        corners |= {tuple(at_one), tuple(at_two)}
        first.add((gaps[i], one))
    assert len(corners) == 9
    assert first == {(gap, start) for gap in range(1, 7) for start in range(7 - gap)}


def test_training_and_tested_digits_and_frames_are_apart(data, tmp_path):
    videos = experiment(data, tmp_path)
    for part, other, digits, frames in (
        (videos.trained, videos.tested, 30, 72),
        (videos.tested, videos.trained, 10, 24),
    ):
        assert [len(part.digits), *map(len, part.clips)] == [digits, frames, frames, frames]
        assert not {item.tobytes() for item in part.digits} & {d.tobytes() for d in other.digits}
        assert not (part.clips[0][:, None] == other.clips[0]).all(axis=(2, 3)).any()


@pytest.mark.parametrize("scheme", ["nope", "vanilla"])
def test_without_positions_the_order_of_frames_is_nothing(data, tmp_path, scheme):
    """The model has one layer, so that a blind one is right every second time."""
    videos = experiment(data, tmp_path, scheme)
    model = videos.task(Point(scheme, 0, ())).init(jax.random.key(0))
    (layer,) = model.layers
    layer.block.attention.q.kernel[...] *= 50  # attends to something
    layer.block.attention.k.kernel[...] *= 50
    video = draw(videos.tested, np.random.default_rng(0), 4, 4, [2] * 4)["video"]
    there, back = (videos.logits(scheme, model, item) for item in (video, video[:, ::-1]))
    assert np.allclose(there, back, atol=1e-5) == (scheme == "nope")


def test_variants_have_the_positions_of_their_builders(data, tmp_path):
    videos = experiment(data, tmp_path)
    segments = [Vision(3, 2, 2), Text(1)]
    for scheme, expected in {
        "vanilla": np.arange(13)[None],
        "tad_rope": positions.tad_rope(segments).positions[..., 0],
        "mrope": positions.qwen2_vl(segments).positions,
        "videorope": positions.videorope(segments, delta=2.0).positions,
        "no_lta": positions.videorope(segments, delta=2.0).positions,
        "no_dl": positions.spaced_frames(segments, delta=2.0).positions,
        "no_ats": positions.videorope(segments, delta=1.0).positions,
    }.items():
        np.testing.assert_array_equal(videos.positions(scheme, 3), expected)
    allocations = {scheme: videos.encoding(scheme, None).axes for scheme in ("videorope", "no_dl")}
    assert allocations["videorope"] == allocations["no_dl"] == (1, 2, 0, 0)
    assert videos.encoding("no_lta", None).axes == (0, 0, 1, 2)
