"""The gallery draws what the modules compute."""

import sys

import common
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.studies import gallery


def test_a_curve_is_the_bias_by_distance():
    encoding = common.build("alibi")
    curve = gallery.curve(encoding, jnp.zeros((1, common.HEADS, common.HEAD_DIM)), 9)
    slopes = 2.0 ** (-2 * np.arange(1, 5))
    np.testing.assert_allclose(curve, -slopes[:, None] * np.arange(8, -1, -1), rtol=1e-6)


@pytest.mark.parametrize(
    ("schemes", "words"),
    [
        ("yarn,t5", ("<h2>yarn</h2>", "128 parameters")),
        ("rnope_swa", ("Layers 1, 2, 3 of 4", "the last 4 keys are seen", "Layer 4 of 4")),
    ],
)
def test_a_page_has_a_figure_for_each_scheme_and_kind_of_layer(
    schemes, words, tmp_path, monkeypatch
):
    out = tmp_path / "page.html"
    sizes = ["--train_length=8", "--head_dim=8"]
    monkeypatch.setattr(sys, "argv", ["gallery", f"--out={out}", f"--schemes={schemes}", *sizes])
    gallery.main()
    page = out.read_text()
    assert page.count("data:image/svg+xml;base64,") == 2 and all(word in page for word in words)
