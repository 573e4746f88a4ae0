"""Tests what is measured in trained models against NumPy, closed forms and a theorem."""

import math
import types

import common
import numpy as np
import pytest

from experiments.evaluation import mechanisms, probes
from experiments.evaluation.controls import within
from experiments.evaluation.layer_attention import watch_texts
from posenc_jax import Layers
from posenc_jax.encodings.lib.axes import STILL

LENGTH, WINDOW, TEXTS = common.TRAIN_LENGTH, 5, 4
# RoPE of the tests rotates half of what it could: its other channels pass by.
ROTARY_DIM = 4
FREQUENCIES = 1e4 ** (-np.arange(ROTARY_DIM // 2) / (ROTARY_DIM / 2))


@pytest.fixture(scope="module")
def model():
    """Makes a model of two layers: RoPE, and ALiBi in a window."""
    rope = common.build("rope", rotary_dim=ROTARY_DIM)
    return common.build_model(Layers([rope, common.build("alibi")], [None, WINDOW]))


@pytest.fixture(scope="module")
def windows():
    return np.random.default_rng(0).integers(0, common.VOCAB, (TEXTS, LENGTH + 1))


def rotated(x, places):
    """Rotates channels c and c + ROTARY_DIM / 2 of ``[..., T, H, C]`` as RoPE does."""
    angles = np.asarray(places)[:, None, None] * FREQUENCIES
    a, b, rest = np.split(x, (ROTARY_DIM // 2, ROTARY_DIM), axis=-1)
    pairs = (a + 1j * b) * np.exp(1j * angles)
    return np.concatenate([pairs.real, pairs.imag, rest], axis=-1)


def test_the_kernel_has_the_same_contents_at_every_distance(model, windows):
    """ALiBi's falls by its slopes whatever the contents are, and RoPE's is that of NumPy."""
    distances = np.array([1, 7, LENGTH, 20 * LENGTH], np.int32)
    actual = probes.kernel(model, windows, distances)
    of_rope, of_alibi = actual["logit"]
    slopes = 2.0 ** (-2 * np.arange(1, common.HEADS + 1))
    fall = (of_alibi[:, :1] - of_alibi[:, 1:]) / (distances[1:] - distances[0])
    np.testing.assert_allclose(fall, np.tile(slopes[:, None], 3), rtol=1e-4)
    texts = windows[:, : LENGTH // 4]
    q, k = common.of_first_layer(model, texts)
    k = rotated(np.roll(k, TEXTS // 2, axis=0), np.arange(LENGTH // 4))
    for distance, logits in zip(distances, of_rope.T, strict=True):
        products = rotated(q, distance + np.arange(LENGTH // 4)) * k
        expected = products.sum(axis=-1).mean(axis=(0, 1)) / math.sqrt(common.HEAD_DIM)
        np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-4)
    assert actual["window"] == [None, WINDOW]


def test_shares_of_pairs_are_their_covariances_with_the_logit(model, windows):
    shares, none = watch_texts(model, mechanisms.shares_of_pairs, windows[:, :-1])
    assert none is None
    # The last is what passes by.
    *periods, passes = mechanisms.periods_of(common.build("rope", rotary_dim=ROTARY_DIM), LENGTH)
    assert passes is None
    np.testing.assert_allclose(periods, 2 * np.pi / FREQUENCIES, rtol=1e-5)
    q, k = (rotated(x, np.arange(LENGTH)) for x in common.of_first_layer(model, windows[:, :-1]))
    pairs = [[0, 2], [1, 3], [4, 5, 6, 7]]
    covariances = np.zeros((common.HEADS, len(pairs)))
    for text in range(TEXTS):
        for place in range(LENGTH):
            by_channel = q[text, place] * k[text, : place + 1]
            parts = np.stack([by_channel[..., pair].sum(axis=-1) for pair in pairs], axis=-1)
            parts -= parts.mean(axis=0)
            covariances += (parts * parts.sum(axis=-1, keepdims=True)).sum(axis=0)
    expected = covariances / covariances.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(shares, expected, rtol=1e-3, atol=1e-5)


def test_attention_by_distance_is_all_of_attention(model, windows):
    actual = probes.attention_by_distance(model, windows)
    np.testing.assert_allclose(actual["weight"].sum(axis=-1), np.ones((2, common.HEADS)), rtol=1e-5)
    assert actual["keys"].sum() == LENGTH
    assert actual["distance"][0] == 0 and actual["distance"][-1] == LENGTH - 1
    far = actual["distance"] >= WINDOW
    wide, near = actual["weight"]
    assert (near[:, far] == 0).all() and (near[:, ~far] > 0).all() and (wide > 0).all()


def test_only_absolute_positions_feel_an_offset(model, windows):
    offsets = probes.offsets(LENGTH)
    assert {0, 8, 32, 128, 512} < set(offsets.tolist()) and len(offsets) == 7
    relative = probes.loss_by_offset(model, windows, offsets)
    assert abs(relative["change"]).max() < 1e-4
    absolute = probes.loss_by_offset(common.build_model("sinusoidal"), windows, offsets)
    assert absolute["change"][0] == 0 and abs(absolute["change"][1:]).min() > 1e-3


@pytest.mark.slow
def test_a_page_of_a_run(corpus, tmp_path, monkeypatch, capsys):
    model = common.build_model("learned", vocab_size=256)
    model = model.under(common.build("learned", out_of_range="error"))
    config = {"train": {"length": LENGTH}, "corpus": corpus}
    monkeypatch.setattr(probes, "load_run", lambda _: (types.SimpleNamespace(model=model), config))
    out = tmp_path / "probes.html"
    assert probes.main(["--run=x", f"--out={out}", f"--windows={TEXTS}"]) == 0
    assert out.read_text().count("data:image/svg+xml;base64,") == 3


# Mechanisms


BASE = 64.0


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
    pairs_P = (a + 1j * b) * np.exp(1j * angles_P)
    rotated = np.concatenate([pairs_P.real, pairs_P.imag], axis=-1)
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
    periods = mechanisms.periods_of(
        common.build("rope", rotary_dim=common.HEAD_DIM, base=BASE), LENGTH
    )
    is_near = [mechanisms.is_near_to(LENGTH, period) for period in periods]
    assert is_near == [False, True, True, False]  # periods of 6, 18, 50 and 142 tokens
    moving = numbers(mechanisms.near(rope_model(), windows))
    still = tuple(STILL if near else 0 for near in is_near)
    stopped = numbers(mechanisms.near(rope_model(axes=still), windows))
    assert min(moving.values()) > 0.1 and set(stopped.values()) == {0.0}
    assert not list(mechanisms.near(common.build_model("alibi"), windows))


def test_even_attention_has_no_bump(windows):
    actual = numbers(mechanisms.measured(even(common.build_model("nope")), windows))
    actual.pop(("copied", 0))
    lengths = (LENGTH // 2, 3 * LENGTH // 4, LENGTH)
    assert actual.keys() == {(name, length) for name in ("far", "first") for length in lengths}
    np.testing.assert_allclose(list(actual.values()), 1.0, rtol=1e-5)


def test_tokens_are_as_often_right_in_both_readings_where_only_the_last_token_is_read(windows):
    """A model that reads the last token alone predicts as well when it reads a text again."""
    alone = mechanisms.copied(within(common.build_model("nope"), 1), windows)
    assert alone == {"probe": "copied", "value": pytest.approx(0.0, abs=1e-5)}
