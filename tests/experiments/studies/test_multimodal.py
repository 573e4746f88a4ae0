"""Tests what multimodal experiments share: models, batches, points, records and report."""

import dataclasses
import html
import io
import json

import chex
import common
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from ml_collections import ConfigDict
from rich.console import Console

from experiments.config import defaults
from experiments.evaluation.layer_attention import attention_weights
from experiments.results.panels import Map, Panel, PanelStudy, Result, cells
from experiments.results.record import environment
from experiments.results.reports import panel_report as report
from experiments.studies.drawn_examples import Experiment
from experiments.studies.multimodal.model import Decoder, ViT, grid
from experiments.training.recipe import RULES, Recipe
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


@pytest.mark.parametrize("name", ["rope", "shaw"])
def test_attention_weights_are_the_same_where_layers_are_scanned(name):
    tokens = np.random.default_rng(0).integers(0, common.VOCAB, (2, T))
    plain, scanned = (
        attention_weights(common.build_model(name, scan=scan, remat=scan), tokens, text(T))
        for scan in (False, True)
    )
    assert plain.shape == (2, 2, common.HEADS, T, T)
    chex.assert_trees_all_close(plain, scanned, rtol=1e-5, atol=1e-6)


def test_attention_weights_know_windows_and_patterns():
    layers = Layers([common.build("rope"), common.build("alibi")], [2, None])
    tokens = np.random.default_rng(0).integers(0, common.VOCAB, (1, T))
    near, far = np.asarray(attention_weights(common.build_model(layers), tokens, text(T)))
    is_near = np.tri(T, dtype=bool) & ~np.tri(T, k=-2, dtype=bool)
    assert (near[:, :, ~is_near] == 0).all() and (near[:, :, is_near] > 0).all()
    assert (far[:, :, np.tri(T, dtype=bool)] > 0).all()


# Experiments


@dataclasses.dataclass(frozen=True)
class Nothing:
    """Has no settings."""


@dataclasses.dataclass(frozen=True)
class Batches:
    batch: int = 3


class Toy(Experiment):
    """Asks which of two classes a vector belongs to: whether its sum is positive."""

    kinds = (Nothing, Batches)
    title = "Sums <&>"
    summary = "Is the sum positive?"

    def load(self):
        self.length = 4
        self.panels = (
            Panel("sums", "accuracy", "patches", (4, 9), trained=(4,)),
            Panel("first logit", "error", "where", ("here", "there"), is_error=True),
        )
        self.data = {"digest": "abc"}

    def new_model(self, scheme, key):
        return self.make_model(ViT, scheme, key, patch_dim=PATCH_DIM, num_classes=2)

    def draw(self, scheme, rng, count, step):
        values = rng.standard_normal((count, 4, PATCH_DIM)).astype(np.float32)
        return {"patches": values, "label": (values.sum(axis=(1, 2)) > 0).astype(np.int32)}

    def loss(self, scheme, model, batch, key):
        logits = jax.nn.log_softmax(model(batch["patches"], grid(2, 2), key=key))
        return -jnp.take_along_axis(logits, batch["label"][:, None], axis=-1).mean()

    def measure(self, scheme, model):
        for count in (4, 9):
            rows = common.normal(count, 5, count, PATCH_DIM)
            logits = self.predict(_logits, model, rows)
            assert logits.shape == (5, 2), "the batch of three that is filled up"
            yield Result("sums", count, "accuracy", float(logits.argmax(axis=-1).mean()), 0.5)
        close(logits, jax.jit(_logits)(model, rows))
        for x, logit in zip(("here", "there"), logits[:, 0], strict=False):
            yield Result("first logit", x, "error", float(logit))

    def pictures(self):
        return {"an <input>": np.eye(3)}

    def maps(self, scheme, model):
        yield Map("all", [[0.5, 0.25], [0.25, 0.0]], (0, 1))


def _logits(model, rows):
    side = round(rows.shape[1] ** 0.5)
    return model(rows, grid(side, side))


def config(**changes):
    rope = {"name": "rope", "axes": (0, 1) * (common.HEAD_DIM // 4)}
    config = ConfigDict(
        {
            "experiment": "toy",
            "schemes": "turning,slower,nope",
            "variants": {
                "turning": {"encoding": rope},
                "slower": {"of": "turning", "encoding": rope | {"base": 9.0}},
                "nope": {"encoding": {"name": "nope"}},
            },
            "seeds": 1,
            "mesh": {},
            "model": SIZES | {"num_layers": 1},
            "task": {},
            "train": defaults(Recipe, leave_out=("length",)),
            "eval": {"batch": 3},
        }
    )
    config.train.update(batch_size=8, steps=2, warmup_steps=1)
    config.update(changes)
    return config


def experiment(workdir, **changes):
    output = io.StringIO()
    return Toy(config(**changes), workdir, Console(file=output, width=200)), output


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("finished")
    toy, output = experiment(workdir)
    assert toy.run() == []
    return workdir, toy.write_report("the command").read_text(), output.getvalue()


@pytest.mark.slow
def test_records_and_files(finished):
    workdir, _, output = finished
    results = json.loads((workdir / "results.json").read_text())
    records = results["records"]
    assert len(records) == 3 * 4 == (workdir / "results.csv").read_text().count("\n") - 1
    assert (workdir / "results.svg").read_text().count("<svg") == 1
    assert {"scheme", "seed", "condition", "x", "metric", "value", "chance"} == set(records[0])
    assert sorted(p.name for p in (workdir / "runs").iterdir()) == ["nope", "turning"]
    first = {r["scheme"]: r["value"] for r in records if r["x"] == "here"}
    assert first["slower"] != first["turning"], "evaluated under the encoding it was trained with"
    trained = {r["scheme"]: r["trained"] for r in results["training"]}
    assert trained == {"turning": "turning", "slower": "turning", "nope": "nope"}
    run = json.loads((workdir / "runs/turning/seed0/run.json").read_text())["config"]
    assert run["variant"]["encoding"]["name"] == "rope" and run["data"] == {"digest": "abc"}
    assert "sums, accuracy:" in output and "chance" in output
    assert RULES in " ".join(output.split())


def test_a_page_has_everything_and_escapes_it(finished):
    _, page, _ = finished
    assert "Sums &lt;&amp;&gt;" in page and "an &lt;input&gt;" in page and "the command" in page
    for heading in ("sums: accuracy", "first logit: error", "Attention over"):
        assert heading in page
    assert html.unescape(page).count(RULES) == 1
    assert page.count("<svg") == 2 and "data:image/png;base64," in page
    assert "<th class=text>chance<td>0.500<td>0.500" in page
    assert "http://" not in page.replace("http://www.w3.org", "")


# The report


ACCURACY = Panel("sums", "accuracy", "patches", (4, 9), trained=(4,))


def study(values, panel=ACCURACY, failures=()):
    """Makes a study of ``values``: by scheme and x, one number for each seed."""
    records = [
        {"scheme": scheme, "seed": seed, "condition": panel.condition, "x": x}
        | {"metric": panel.metric, "value": value, "chance": 0.125}
        for scheme, row in values.items()
        for x, seeds in row.items()
        for seed, value in enumerate(seeds)
    ]
    about = environment() | {"title": "t", "summary": "s", "data": {}}
    about |= {"command": "c", "config": {}, "date": "2026-01-01", "rules": RULES}
    return PanelStudy(records, [], list(failures), about, [], (panel,))


def test_cells_are_means_with_their_errors_the_best_first():
    result = cells(study({"a": {4: [0.5, 0.7], 9: [0.1]}, "b": {4: [1.0], 9: [0.2]}}), ACCURACY)
    assert list(result) == ["b", "a"]
    mean, stderr, seeds = result["a"][4]
    assert (mean, seeds) == (pytest.approx(0.6), 2) and stderr == pytest.approx(0.1)
    error = Panel("sums", "error", "patches", (4, 9), is_error=True)
    assert list(cells(study({"a": {9: [0.1]}, "b": {9: [0.2]}}, error), error)) == ["a", "b"]
    assert list(cells(study({"a": {9: [float("nan")]}, "b": {9: [0.2]}}), ACCURACY)) == ["b", "a"]


def test_a_table_says_what_the_records_say(tmp_path):
    values = {"a": {4: [0.5, 0.7], 9: [0.1, 0.3]}, "b": {4: [0.25], 9: [float("nan")]}}
    failure = {"scheme": "b", "seed": 1, "reason": "out of memory"}
    results = study(values, failures=[failure])
    page = report.write(tmp_path, results, {}).read_text()
    assert "<b>0.600</b><small> ±0.100</small>" in page
    assert "<td>0.250<small> (1 of 2 seeds)</small>" in page and "not finite" in page
    assert "out of memory" in page and "<th class=text>chance<td>0.125<td>0.125" in page
    assert page.count("<svg") == 1 and "Attention" not in page
    first = (tmp_path / "report.html").read_bytes()
    assert report.write(tmp_path, results, {}).read_bytes() == first
    output = io.StringIO()
    report.print_tables(results, Console(file=output, width=100))
    assert "0.600 ±0.100" in output.getvalue() and "out of memory" in output.getvalue()
