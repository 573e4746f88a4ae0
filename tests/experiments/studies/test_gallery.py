"""The gallery draws what the modules compute."""

import sys

import common
import jax.numpy as jnp
import numpy as np

from experiments.studies import gallery


def test_a_curve_is_the_bias_by_distance():
    encoding = common.build("alibi")
    curve = gallery.curve(encoding, jnp.zeros((1, common.HEADS, common.HEAD_DIM)), 9)
    slopes = 2.0 ** (-2 * np.arange(1, 5))
    np.testing.assert_allclose(curve, -slopes[:, None] * np.arange(8, -1, -1), rtol=1e-6)


def test_a_page_has_a_figure_for_each_scheme_and_kind_of_layer(tmp_path, monkeypatch):
    out = tmp_path / "page.html"
    what = [f"--out={out}", "--schemes=yarn,rnope_swa", "--train_length=8", "--head_dim=8"]
    monkeypatch.setattr(sys, "argv", ["gallery", *what])
    gallery.main()
    assert out.read_text().count("data:image/svg+xml;base64,") == 3
