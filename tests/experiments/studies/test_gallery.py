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


def page_of(schemes, tmp_path, monkeypatch):
    out = tmp_path / "page.html"
    sizes = ["--train_length=8", "--head_dim=8"]
    monkeypatch.setattr(sys, "argv", ["gallery", f"--out={out}", f"--schemes={schemes}", *sizes])
    gallery.main()
    return out.read_text()


def test_a_page_with_a_figure_for_each_scheme(tmp_path, monkeypatch):
    page = page_of("rope,t5", tmp_path, monkeypatch)
    assert page.count("<svg") == 2 and "id=rope" in page and "128 parameters" in page


def test_a_figure_for_each_kind_of_layer(tmp_path, monkeypatch):
    page = page_of("rnope_swa", tmp_path, monkeypatch)
    assert page.count("<svg") == 2
    assert "Layers 1, 2, 3 of 4" in page and "the last 4 keys are seen" in page
    assert "Layer 4 of 4" in page
