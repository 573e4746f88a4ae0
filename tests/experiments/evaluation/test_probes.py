"""Tests the probes against closed forms and plain NumPy, and the page that is made of them."""

import json
import math
import types

import common
import numpy as np
import pytest

from experiments.evaluation import probes
from experiments.results.reports.templates import FIGURES
from experiments.training.data import load_corpus
from experiments.training.windows import eval_windows
from posenc_jax import Layers

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
    a, b = x[..., : ROTARY_DIM // 2], x[..., ROTARY_DIM // 2 : ROTARY_DIM]
    cos, sin = np.cos(angles), np.sin(angles)
    return np.concatenate([a * cos - b * sin, b * cos + a * sin, x[..., ROTARY_DIM:]], axis=-1)


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


def test_what_content_places_has_no_kernel(windows):
    for name in ("cope", "fox"):
        model = common.build_model(name)
        assert probes.kernel(model, windows, probes.distances(LENGTH)) is None


def test_shares_of_pairs_are_their_covariances_with_the_logit(model, windows):
    actual = probes.variance_by_pair(model, windows)
    (periods, others), (shares, none) = actual["period"], actual["share"]
    assert others is None and none is None
    # The last is what passes by.
    assert periods.pop() is None
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
    offsets = probes.offsets(LENGTH, seed=0)
    assert {0, 8, 32, 128, 512} < set(offsets.tolist()) and len(offsets) == 8
    assert (offsets == probes.offsets(LENGTH, seed=0)).all()
    assert set(offsets) != set(probes.offsets(LENGTH, seed=1))
    relative = probes.loss_by_offset(model, windows, offsets)
    assert abs(relative["change"]).max() < 1e-4
    absolute = probes.loss_by_offset(common.build_model("sinusoidal"), windows, offsets)
    assert absolute["change"][0] == 0 and abs(absolute["change"][1:]).min() > 1e-3


@pytest.mark.slow
def test_a_page_of_a_run(corpus, tmp_path, monkeypatch, capsys):
    """A table that refuses positions past its end has no number there, and no pairs."""
    model = common.build_model("learned", vocab_size=256)
    model = model.under(common.build("learned", out_of_range="error"))
    config = {"train": {"length": LENGTH}, "corpus": corpus}
    monkeypatch.setattr(probes, "load_run", lambda _: (types.SimpleNamespace(model=model), config))
    out = tmp_path / "probes.html"
    assert probes.main(["--run=x", f"--out={out}", f"--windows={TEXTS}"]) == 0
    written = out.read_text()
    names = ["attention_by_distance", "loss_by_offset", "kernel"]
    assert written.count("<svg") == 3
    assert all(FIGURES[name][0] in written for name in names)

    texts = eval_windows(load_corpus(corpus), "test", length=LENGTH + 1, count=TEXTS)
    actual = probes.probe(model, texts, seed=0)
    assert [*actual] == ["train_length", "windows", *names]
    assert actual == json.loads(json.dumps(actual, allow_nan=False))
    losses = actual["loss_by_offset"]["loss"]
    assert losses[0] is not None and set(losses[1:]) == {None}
    of_head = actual["kernel"]["logit"][0][0]
    inside = [d <= LENGTH - LENGTH // 4 for d in actual["kernel"]["distance"]]
    assert inside == [logit is not None for logit in of_head]
