"""Tests what multimodal experiments share: models, batches, points, records and report."""

import io

import common
import numpy as np
import pytest
from flax import nnx
from rich.console import Console
from study_records import ABOUT, panel_records

from experiments.evaluation.layer_attention import attention_weights
from experiments.results.panels import Panel, PanelStudy, cells
from experiments.results.reports import panel_report as report
from experiments.studies.multimodal.model import Decoder, ViT
from posenc_jax import Layers
from posenc_jax.positions import text

T, PATCH_DIM = 6, 5
SIZES = dict(model_dim=common.WIDTH, num_layers=2, num_heads=common.HEADS, mlp_dim=16)


def close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


# Models


def test_the_decoder_mixes_tokens_and_patches():
    sizes = SIZES | {"vocab_size": 7, "patch_dim": PATCH_DIM}
    model = Decoder(common.build("rope"), rngs=nnx.Rngs(0), **sizes)
    assert model.causal
    tokens = np.arange(T)[None] % 7
    values = common.normal(1, 1, T, PATCH_DIM)
    is_patch = np.array([[False, True, True, False, True, False]])
    x_TD = np.asarray(model.embed({"tokens": tokens, "patches": values, "is_patch": is_patch}))[0]
    table, matrix = np.asarray(model.embedding[...]), np.asarray(model.from_patch.kernel[...])
    for i in range(T):
        close(x_TD[i], values[0, i] @ matrix if is_patch[0, i] else table[tokens[0, i]])


def test_the_vit_reads_all_patches_in_any_order():
    model = ViT(common.build("nope"), patch_dim=PATCH_DIM, num_classes=3, rngs=nnx.Rngs(0), **SIZES)
    values = common.normal(1, 2, T, PATCH_DIM)
    logits = model(values, text(T))
    assert logits.shape == (2, 3)
    close(model(values[:, ::-1], text(T)), logits)
    x_BD = np.asarray(model.hidden(values, text(T))).max(axis=1)
    close(logits, x_BD @ np.asarray(model.embedding[...]).T)


@pytest.mark.parametrize("name,causal", [("selective_rope", True), ("sinusoidal", False)])
def test_attention_weights_are_those_of_the_model(name, causal):
    """The model's output is put together by hand with the weights."""
    model = common.build_model(name, causal=causal)
    tokens = np.random.default_rng(0).integers(0, common.VOCAB, (2, T))
    weights = np.asarray(attention_weights(model, tokens, text(T)))
    close(weights.sum(axis=-1), np.ones(weights.shape[:-1]))
    (encoding,) = model.distinct()
    x_BTD = encoding.embed(model.embed(tokens), encoding.tokens(text(T)))
    for layer, weights_BHTS in zip(model.layers, weights, strict=True):
        block = layer.block
        v_BTHC = block.attention.v(block.attention_norm(x_BTD)).reshape(2, T, common.HEADS, -1)
        out = np.einsum("bhts,bshc->bthc", weights_BHTS, v_BTHC)
        x_BTD = x_BTD + block.attention.out(out.reshape(2, T, -1))
        x_BTD = x_BTD + block.mlp(block.mlp_norm(x_BTD))
    close(model.final_norm(x_BTD), model.hidden(tokens, text(T)))


def test_attention_weights_know_windows_and_patterns():
    layers = Layers([common.build("rope"), common.build("alibi")], [2, None])
    tokens = np.random.default_rng(0).integers(0, common.VOCAB, (1, T))
    near, far = np.asarray(attention_weights(common.build_model(layers), tokens, text(T)))
    is_near = np.tri(T, dtype=bool) & ~np.tri(T, k=-2, dtype=bool)
    assert (near[:, :, ~is_near] == 0).all() and (near[:, :, is_near] > 0).all()
    assert (far[:, :, np.tri(T, dtype=bool)] > 0).all()


# The report


ACCURACY = Panel("sums", "accuracy", "patches", (4, 9), trained=(4,))


def study(values, panel=ACCURACY, failures=()):
    """Makes a study of ``values``: by scheme and x, one number for each seed."""
    about = ABOUT | {"title": "t", "summary": "s", "data": {}}
    return PanelStudy(panel_records(panel, values), [], list(failures), about, [], (panel,))


def test_cells_are_means_with_their_intervals_the_best_first():
    result = cells(study({"a": ([0.5, 0.7], [0.1]), "b": ([1.0], [0.2])}), ACCURACY)
    assert list(result["scheme"].unique()) == ["b", "a"]
    mean, margin, seeds = result.set_index(["scheme", "x"]).loc[("a", 4)]
    # A standard error of 0.1, times 12.706.
    assert (mean, seeds) == (pytest.approx(0.6), 2) and margin == pytest.approx(1.2706, abs=1e-4)
    error = Panel("sums", "error", "patches", (4, 9), is_error=True)
    both = study({"a": ([], [0.1]), "b": ([], [0.2])}, error)
    assert list(cells(both, error)["scheme"]) == ["a", "b"]
    lost = study({"a": ([], [float("nan")]), "b": ([], [0.2])})
    assert list(cells(lost, ACCURACY)["scheme"]) == ["b", "a"]


def test_a_table_says_what_the_records_say(tmp_path):
    values = {"a": ([0.5, 0.7], [0.1, 0.3]), "b": ([0.25], [float("nan")])}
    failure = {"scheme": "b", "seed": 1, "reason": "out of memory"}
    results = study(values, failures=[failure])
    page = report.write(tmp_path, results, {}).read_text()
    assert "<td>0.600<small> ±1.271</small>" in page
    assert "<td>0.250<small> (1 of 2 seeds)</small>" in page and "not finite" in page
    assert "out of memory" in page and "<th class=text>chance<td>0.100<td>0.100" in page
    assert page.count("<svg") == 1 and "Attention" not in page
    first = (tmp_path / "report.html").read_bytes()
    assert report.write(tmp_path, results, {}).read_bytes() == first
    output = io.StringIO()
    report.print_tables(results, Console(file=output, width=100))
    assert "0.600 ±1.271" in output.getvalue() and "out of memory" in output.getvalue()
