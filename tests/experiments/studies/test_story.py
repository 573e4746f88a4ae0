"""Tests the experiment on story time, with small clips."""

import common
import jax
import numpy as np
import pytest
from tiny_runs import study

from experiments.studies.multimodal import story
from experiments.studies.multimodal.story import lay_out

FRAMES, SIDE, PATCH, QUESTIONS = 6, 16, 8, 2
TRAINED = ("frame_index", "frame_index_told", "time_rope", "time_rope_adaln")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return study("story", tmp_path_factory.mktemp("story"))


@pytest.fixture(scope="module")
def clips(tiny):
    times = np.array([[0.0, 1.5, 3.0, 3.0, 2.0, 5.0], [7.0, 6.0, 5.0, 4.0, 3.0, 2.5]])
    return tiny.clips(np.random.default_rng(0), times)


def test_frames_show_the_ball_where_it_is(clips):
    side = 64  # so that nothing of the ball is out of the picture
    middles = (np.arange(side) + 0.5) / side - 0.5
    frames = clips.frames(side)
    total = frames.sum(axis=(2, 3))
    observed = [np.einsum(f"nfyx,{axis}->nf", frames, middles) / total for axis in "xy"]
    places = np.stack(observed, axis=-1) + clips.cameras
    np.testing.assert_allclose(places, clips.places(clips.times), atol=1e-5)
    assert np.ptp(clips.cameras, axis=1).min() > 1e-3  # the view moves


def test_tokens(clips):
    given = clips.frames(SIDE), clips.cameras, clips.times, clips.asked
    inputs, times, positions = lay_out(*given, PATCH)
    of_patches, of_questions = inputs[:, :-QUESTIONS], inputs[:, -QUESTIONS:]
    places = clips.places(clips.times)
    for clip, frame in np.ndindex(2, FRAMES):
        four = of_patches[clip, 4 * frame : 4 * frame + 4]
        # The ball is in the patch with the nearest middle, and the picture is put together again.
        distances = np.linalg.norm(four[:, PATCH**2 : -1] - places[clip, frame], axis=1)
        assert four[:, : PATCH**2].sum(1).argmax() == distances.argmin()
        whole = np.block([[p.reshape(PATCH, PATCH) for p in four[i : i + 2, :-3]] for i in (0, 2)])
        np.testing.assert_array_equal(whole, clips.frames(SIDE)[clip, frame])
    assert (of_questions[..., :-1] == 0).all() and (of_questions[..., -1] == 1).all()
    assert (of_patches[..., -1] == 0).all()
    asked = np.concatenate([clips.times.repeat(4, axis=1), clips.asked], axis=1)
    np.testing.assert_array_equal(times, asked)
    np.testing.assert_allclose(positions[..., 0], asked, rtol=1e-6)
    np.testing.assert_array_equal(positions[1, :8, 1], [0, 0, 1, 1] * 2)
    np.testing.assert_array_equal(positions[1, :8, 2], [0, 1, 0, 1] * 2)
    assert (positions[:, -QUESTIONS:, 1:] == 0).all() and positions.dtype == np.float32


answers = jax.jit(story._answers)


def trained(tiny, scheme):
    return common.moved(tiny.new_model(scheme, jax.random.key(0)), 0)


@pytest.mark.parametrize("scheme", TRAINED)
def test_what_a_model_knows_of_time(tiny, clips, scheme):
    """The same frames are said to be of other times: told, shifted, asked about another time."""
    model = trained(tiny, scheme)

    def change(after=0.0, later=0.0, slower=1.0):
        rows = tiny.rows(scheme, clips)
        times, asked = (slower * (t + later) for t in (clips.times, clips.asked + after))
        other = tiny.rows(scheme, clips._replace(times=times, asked=asked))
        # The ball is where it was.
        other["inputs"][..., : PATCH**2] = rows["inputs"][..., : PATCH**2]
        before, now = (answers(model, item) for item in (rows, other))
        return float(np.abs(before - now).max() / np.std(before))

    knows, shifts = scheme != "frame_index", scheme in ("frame_index_told", "time_rope_adaln")
    assert (change(after=1.0) > 1e-2) == knows and (change(slower=2.0) > 1e-2) == knows
    assert (change(later=8.0) > 1e-2) == shifts
    if not shifts:
        assert change(later=8.0) < 1e-3


@pytest.mark.parametrize("step", [0.0, 0.1])
def test_measures_of_known_answers(tiny, monkeypatch, step):
    """Answers are those of the true path, by ``step`` to the right for every camera in turn."""

    def answers(scheme, model, clips):
        aside = step * (np.arange(len(clips.times)) % 8)
        return clips.answers + np.stack([aside, 0 * aside], axis=-1)[:, None]

    monkeypatch.setattr(tiny, "answers", answers)
    actual = list(tiny.measure("time_rope", None))
    asked = [(panel.condition, x) for panel in tiny.panels for x in panel.xs]
    assert [(result.condition, result.x) for result in actual] == asked
    for result in actual:
        spread = step * np.std(np.arange(8))
        error = step * np.sqrt(np.mean(np.arange(8) ** 2))
        expected = spread if result.condition == "bullet time" else error
        assert result.value == pytest.approx(expected)
        assert result.chance is None or 0.1 < result.chance < 0.25
