"""Tests what multimodal experiments share: models, batches, points, records and report."""

import common
import numpy as np
import pytest
from flax import nnx
from study_records import panel_records
from tiny_runs import study

from experiments.evaluation.layer_attention import watch, weights
from experiments.studies.multimodal.model import Decoder, ViT
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
    by_layer = list(map(np.asarray, watch(model, weights, tokens, text(T))))
    close(by_layer[0].sum(axis=-1), np.ones((2, common.HEADS, T)))
    (encoding,) = model.distinct()
    x_BTD = encoding.at(text(T)).embed(model.embed(tokens))
    for layer, weights_BHTS in zip(model.layers, by_layer, strict=True):
        block = layer.block
        v_BTHC = block.attention.v(block.attention_norm(x_BTD)).reshape(2, T, common.HEADS, -1)
        out = np.einsum("bhts,bshc->bthc", weights_BHTS, v_BTHC)
        x_BTD = x_BTD + block.attention.out(out.reshape(2, T, -1))
        x_BTD = x_BTD + block.mlp(block.mlp_norm(x_BTD))
    close(model.final_norm(x_BTD), model.hidden(tokens, text(T)))


# The report


def test_tables_say_what_the_records_say(tmp_path, monkeypatch):
    story = study("story", tmp_path, schemes="frame_index,time_rope,time_rope_halved")
    panel = story.panels[0]
    xs = dict.fromkeys(panel.xs, ([0.5, 0.7], [0.1, 0.3], [0.25, float("nan")]))
    schemes = ("frame_index", "time_rope", "time_rope_halved")
    values = {scheme: [of_x[n] for of_x in xs.values()] for n, scheme in enumerate(schemes)}
    records = panel_records(panel, values)
    monkeypatch.setattr(story, "all_of", lambda key: records)
    frame = story.frame()
    assert set(frame["unit"]) == {"frame widths"}
    comparisons = story.comparisons(frame)
    assert set(comparisons["against"]) == {"frame_index"}
    (shown,) = story.tables(frame, comparisons)
    assert shown.title.startswith("pace: error in frame widths")
    assert list(shown.cells.index) == ["time_rope", "frame_index", "time_rope_halved", "chance"]
    assert shown.cells.loc["time_rope"].iloc[0].startswith("0.200\n±1.271")
    assert set(shown.cells.loc["time_rope_halved"]) == {"not finite"}
    assert set(shown.cells.loc["chance"]) == {"0.100"}
    figures = story.figures(frame)
    assert [axes.get_title("left") for axes in figures["results"].axes] == ["pace"]
