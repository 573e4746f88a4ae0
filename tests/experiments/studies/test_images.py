"""Tests the experiment on images, on a few made up."""

import common
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_runs import study

from experiments.running.pool import run_points
from experiments.studies.multimodal.images import paste, rescale

SIDE, COUNT = 28, 60


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return common.images_of_four(tmp_path_factory.mktemp("data"), COUNT, SIDE)


def experiment(data, workdir, scheme="axial_rope", **changes):
    here = dict(schemes=scheme, task__data=data, task__test_images=20)
    return study("images", workdir, **here, **changes)


def test_learns_and_has_a_report(data, tmp_path):
    images = experiment(data, tmp_path, train__steps=40, train__learning_rate=0.02)
    assert run_points(images) == []
    page = images.write_report("the command").read_text()
    assert page.count("data:image/svg+xml;base64,") == 1
    (evaluation,) = images.evaluations()
    at = {(r["condition"], r["x"]): r["value"] for r in evaluation["records"]}
    assert at["rescaled", SIDE] == at["pasted", SIDE] > 0.6
    assert {r["chance"] for r in evaluation["records"]} == {0.25}


def test_training_and_tested_images_are_apart(data, tmp_path):
    images = experiment(data, tmp_path)
    observed = {image.tobytes() for image in images.train_images}
    assert len(observed) == COUNT - 20 and len(images.test_images) == 16
    assert not observed & {image.tobytes() for image in images.test_images}


def test_patches_are_where_their_variant_says(data, tmp_path):
    images = experiment(data, tmp_path)
    for scheme, corner, last in (
        ("axial_rope", [0, 0], [1, 1]),
        ("dinov3", [-0.5, -0.5], [0.5, 0.5]),
    ):
        np.testing.assert_array_equal(images.positions(scheme, 2)[0, [0, -1]], [corner, last])
    np.testing.assert_allclose(images.positions("circle_rope", 3)[0].sum(axis=-1), 0, atol=1e-5)
    # Only in training does DINOv3 move them.
    moved = {
        scheme: images.encoding(scheme, None).augmented(jnp.ones((1, 1, 2)), jax.random.key(0))
        for scheme in ("dinov3", "dinov3_still")
    }
    assert abs(moved["dinov3"] - 1).min() > 1e-3 and (moved["dinov3_still"] == 1).all()


def test_pasting_moves_whole_patches():
    images = np.random.default_rng(0).integers(1, 255, (50, SIDE, SIDE)).astype(np.uint8)
    pasted = paste(images, 84, 7)
    corners = set()
    for image, canvas in zip(images, pasted, strict=True):
        rows, columns = (np.flatnonzero(canvas.any(axis=axis)) for axis in (1, 0))
        np.testing.assert_array_equal(canvas[np.ix_(rows, columns)], image)
        corners.add((rows[0], columns[0]))
    assert all(top % 7 == left % 7 == 0 for top, left in corners)
    assert {0, 56} <= {top for top, _ in corners} and len(corners) > 20
    np.testing.assert_array_equal(paste(images[:3], 84, 7), pasted[:3])
    np.testing.assert_array_equal(paste(images, SIDE, 7), images)


def test_rescaling_is_bilinear():
    images = np.array([[[0, 100], [200, 60]]], np.uint8)
    np.testing.assert_array_equal(rescale(images, 2, 1), images)
    # Pixels are areas: the middles of four lie at -1/4, 1/4, 3/4, 5/4 between those of two.
    weights = np.array([[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]])
    np.testing.assert_array_equal(rescale(images, 4, 1)[0], weights @ images[0] @ weights.T)
