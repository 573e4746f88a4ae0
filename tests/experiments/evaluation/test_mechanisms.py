"""Tests what is measured in trained models against plain NumPy, closed forms and a theorem."""

import math

import common
import jax
import numpy as np
import pytest

from experiments.evaluation import mechanisms
from experiments.evaluation.controls import within
from experiments.evaluation.probes import periods_of
from posenc_jax import positions
from posenc_jax.encodings.lib.axes import STILL

LENGTH, BASE = common.TRAIN_LENGTH, 64.0


@pytest.fixture(scope="module")
def windows():
    return np.random.default_rng(0).integers(0, common.VOCAB, (4, LENGTH + 1))


def rope_model(**keywords):
    rope = common.build("rope", rotary_dim=common.HEAD_DIM, base=BASE, **keywords)
    return common.build_model(rope)


def numbers(actual):
    """Returns values by the name of the probe, and by layer or length where there are several."""
    return {(row["probe"], row.get("layer", row.get("length", 0))): row["value"] for row in actual}


def even(model):
    """Returns the model with queries of 0, so that attention is even."""
    for layer in model.layers:
        kernel = layer.block.attention.q.kernel
        kernel[...] = 0 * kernel[...]
    return model


def test_logits_at_other_distances_are_those_of_moved_queries(windows):
    """The last query, moved ahead by 7 tokens, is as far from a key as the sum of both."""
    model = rope_model()
    q, k = common.of_first_layer(model, windows[:, :-1])
    _, h_XP, speed_P = next(mechanisms.contributions(model, windows))
    h_NHSP = h_XP.reshape(4, common.HEADS, LENGTH, -1)
    pairs = common.HEAD_DIM // 2
    angle_P = BASE ** (-np.arange(pairs) / pairs)
    np.testing.assert_allclose(speed_P, angle_P, rtol=1e-5)
    key, moved = 5, 7
    angles_P = angle_P * (LENGTH - 1 - key + moved)
    a, b = q[:, -1, :, :pairs], q[:, -1, :, pairs:]
    rotated = np.concatenate(
        [a * np.cos(angles_P) - b * np.sin(angles_P), b * np.cos(angles_P) + a * np.sin(angles_P)],
        axis=-1,
    )
    expected = (rotated * k[:, key]).sum(axis=-1) / math.sqrt(common.HEAD_DIM)
    distance = np.array([LENGTH - 1 - key + moved])
    actual = mechanisms.logits_at(h_NHSP[:, :, key].reshape(-1, pairs), speed_P, distance)
    np.testing.assert_allclose(actual.reshape(expected.shape), expected, rtol=1e-3, atol=1e-3)


def errors(h_XP, speed_P):
    whole = np.arange(LENGTH)
    trained, between = (mechanisms.logits_at(h_XP, speed_P, x) for x in (whole, whole[:-1] + 0.5))
    return abs(between - (trained[:, 1:] + trained[:, :-1]) / 2).max(axis=1)


def test_interpolation_errs_by_the_second_derivative_at_most(windows):
    for _, h_XP, speed_P in mechanisms.contributions(rope_model(), windows):
        bound = (abs(h_XP) * speed_P**2).sum(axis=1) / 8
        error = errors(h_XP, speed_P)
        assert (error <= bound * (1 + 1e-4)).all() and error.max() > 0.5 * bound.max()


def test_the_published_bound_of_interpolation_does_not_hold():
    """All pairs of a head of 128 channels add 1 in phase, half way between two distances."""
    speed_P = 1e4 ** (-np.arange(64) / 64)
    h_XP = np.exp(-7.5j * speed_P)[None]
    bound = mechanisms.published_bound(h_XP, speed_P)
    assert bound == pytest.approx(128 / (32 * math.log(1e4)), rel=1e-6)
    assert errors(h_XP, speed_P) > 1.1 * bound


def test_pairs_that_stand_still_carry_nothing_near_the_trained_length(windows):
    periods = periods_of(common.build("rope", rotary_dim=common.HEAD_DIM, base=BASE), LENGTH)
    is_near = [mechanisms.is_near_to(LENGTH, period) for period in periods]
    assert is_near == [False, True, True, False]  # periods of 6, 18, 50 and 142 tokens
    moving = numbers(mechanisms.near(rope_model(), windows))
    still = tuple(STILL if near else 0 for near in is_near)
    stopped = numbers(mechanisms.near(rope_model(axes=still), windows))
    assert min(moving.values()) > 0.1 and set(stopped.values()) == {0.0}
    assert not list(mechanisms.near(common.build_model("alibi"), windows))


def test_even_attention_has_no_bump_and_no_sink(windows):
    actual = numbers(mechanisms.measured(even(common.build_model("nope")), windows))
    uniform = sum(1 / t for t in range(1, LENGTH + 1)) / LENGTH
    assert actual.pop(("sink", 0)) == pytest.approx(uniform, rel=1e-5)
    actual.pop(("copied", 0))
    lengths = (LENGTH // 2, 3 * LENGTH // 4, LENGTH)
    assert actual.keys() == {(name, length) for name in ("far", "first") for length in lengths}
    np.testing.assert_allclose(list(actual.values()), 1.0, rtol=1e-5)


def test_tokens_are_as_often_right_in_both_readings_where_only_the_last_token_is_read(windows):
    """A model that reads the last token alone predicts as well when it reads a text again."""
    alone = mechanisms.copied(within(common.build_model("nope"), 1), windows)
    assert alone == {"probe": "copied", "value": pytest.approx(0.0, abs=1e-5)}
    text_BT = np.tile(windows[:1, : (LENGTH + 1) // 2], 2)
    logits_BTV = common.build_model("alibi")(text_BT, positions.text(text_BT.shape[1]))
    bits_T = -np.asarray(jax.nn.log_softmax(logits_BTV))[
        0, np.arange(text_BT.size - 1), text_BT[0, 1:]
    ]
    half = text_BT.size // 2
    expected = (bits_T[: half - 1].mean() - bits_T[half:].mean()) / math.log(2)
    actual = mechanisms.copied(common.build_model("alibi"), windows[:1])
    assert actual["value"] == pytest.approx(expected, abs=1e-5)


def test_attention_that_falls_with_the_distance_has_no_bump(windows):
    actual = numbers(mechanisms.ends(even(common.build_model("alibi")), windows))
    assert all(value < 1.0 for value in actual.values())
