"""Tests the comparison of schemes on text, at a size that runs in seconds."""

import json
import math
import re

import common
import jax
import pytest
from tiny_runs import comparison, config

from configs.extrapolation import PRESETS, SMALL, get_config
from experiments.results import table
from experiments.running.pool import run_points
from experiments.studies.text import points
from posenc_jax import REGISTRY
from posenc_jax.registry import PATTERNS

SCHEMES = "rope", "yarn", "alibi"


def results_of(workdir):
    """Returns the numbers in a workdir, the mean over texts, by scheme, measure and multiple."""
    frame = table.by_seed(table.read(workdir / table.FILE))
    return table.select(frame, split="test").set_index(["scheme", "measure", "x"])["value"]


def test_results_hold_every_scheme_length_and_protocol(finished):
    page, bits = (finished / "report.html").read_text(), results_of(finished)
    assert "the command" in page
    for scheme in SCHEMES:
        for measure in ("last", "non_overlapping", "sliding, stride 8"):
            assert {(scheme, measure, 1), (scheme, measure, 2)} <= set(bits.index)
        assert (scheme, "windowed", 1) in bits.index and scheme in page
        one, two = bits[scheme, "last", 1], bits[scheme, "last", 2]
        line = f"{scheme:<15} 1x {one:.3f}  2x {two:.3f}  bits per byte"
        assert line in (finished / "printed").read_text()


def test_run_json_records_what_a_figure_must_be_quoted_with(finished):
    run = json.loads((finished / "runs/rope/seed0/run.json").read_text())
    assert run["config"]["train"]["length"] == 32 and run["config"]["seed"] == 0
    assert len(run["config"]["corpus_digest"]) == 64
    assert run["versions"]["jax"] == jax.__version__ and run["device"] and run["git"]


def test_an_extension_is_evaluated_on_the_checkpoint_it_extends(finished):
    assert sorted(p.name for p in (finished / "runs").iterdir()) == ["alibi", "rope"]
    bits = results_of(finished)
    # At the training length YaRN's factor is 1, which changes nothing; beyond it does.
    assert bits["yarn", "last", 1] == pytest.approx(bits["rope", "last", 1], abs=2e-6)
    assert bits["yarn", "last", 2] != pytest.approx(bits["rope", "last", 2], abs=2e-6)


def test_an_extension_shares_the_settings_its_checkpoint_was_trained_with(corpus, tmp_path):
    changes = {"encodings__rope__base": 77.0, "encodings__yarn__beta_fast": 5.0}
    one, _ = comparison(config(corpus, **changes), tmp_path)
    yarn = one._extension("yarn", 2)
    assert yarn.base == 77.0
    assert (yarn.frequencies.beta_fast, yarn.frequencies.factor) == (5.0, 2.0)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"encodings__yarn__base": 77.0}, "encodings.yarn.base=77.0 .* change encodings.rope.base"),
        (
            {"encodings__yarn__factor": 8.0},
            "encodings.yarn.factor=8.0 .* change extend.yarn.factor",
        ),
        ({"eval__strides": ((8, 1), (8, 2))}, "eval.strides=.* each stride once"),
    ],
)
def test_a_setting_that_could_have_no_effect_is_refused(corpus, tmp_path, changes, why):
    with pytest.raises(ValueError, match=why):
        comparison(config(corpus, **changes), tmp_path)


def test_a_split_that_the_corpus_lacks_is_named(corpus, tmp_path):
    _, output = comparison(config(corpus, eval__splits=("test", "code")), tmp_path)
    assert "eval.splits='code'" in output.getvalue()


def test_windows_that_begin_alike_have_the_losses_of_those_scored_alone(
    corpus, tmp_path, monkeypatch
):
    """Randomized positions depend on the length: their windows must not stand for others."""
    one, _ = comparison(config(corpus, schemes="randomized"), tmp_path)
    model = jax.jit(one.task(one.points[0]).init)(jax.random.key(0))
    model = jax.tree.map(lambda x: 8 * x, model)  # so that positions matter without training
    actual = one.evaluate(one.points[0], model)
    monkeypatch.setattr("posenc_jax.Encoding.reads_length", lambda encoding: True)
    alone = one.evaluate(one.points[0], model)
    for key in ("records", "curves"):
        for once, item in zip(actual[key], alone[key], strict=True):
            assert once == {name: pytest.approx(value) for name, value in item.items()}


def test_derived_settings_follow_an_overridden_length():
    config = get_config("small")
    config.train.length = 256
    assert config.encodings.fire.init_length == 64.0
    assert config.encodings.t5.max_distance == 128
    config.model.num_heads = 8
    assert config.encodings.t5.table_scale == 16**0.5


# Points

WRITTEN_OUT = "global_nope", "beam", "flint"  # for any number of layers


def test_points_are_every_trained_scheme_under_every_seed():
    config = get_config("small")
    actual = points(config)
    trained = [name for name in SMALL.split(",") if name not in config.extend]
    assert len(actual) == 3 * len(trained) == 33
    assert [p.scheme for p in actual[: len(trained)]] == trained
    assert actual[trained.index("rope")].extensions == ("pi", "ntk", "dynamic_ntk", "yarn")
    config.schemes = "all"
    everything = {name for p in points(config) for name in (p.scheme, *p.extensions)}
    assert everything == set(REGISTRY) - set(PATTERNS) | set(WRITTEN_OUT)


def test_points_have_the_patterns_that_fit_the_layers():
    config = get_config("tiny")
    of_4 = {"irope", "rnope_swa", "global_yarn"}
    for num_layers, fit in ((2, ()), (4, of_4), (6, {"dual_base"}), (12, PATTERNS)):
        common.changed(config, schemes="all", model__num_layers=num_layers)
        schemes = {point.scheme for point in points(config)}
        assert schemes & {*PATTERNS} == {*fit, *WRITTEN_OUT}
        config.schemes = "irope"
        assert [point.scheme for point in points(config)] == ["irope"]


@pytest.mark.parametrize(
    "preset", [pytest.param(p, marks=[pytest.mark.slow] * (p == "paper")) for p in PRESETS]
)
def test_presets_describe_models_that_exist(preset, tmp_path):
    config = get_config(preset)
    config.corpus = "stdlib"
    one, _ = comparison(config, tmp_path)
    assert one.protocols.document_length(one.recipe.length) == one.documents["test"].shape[1]


def test_of_several_learning_rates_each_scheme_is_reported_at_its_best(corpus, tmp_path):
    rates = (1e-3, 1e-2)
    changes = dict(schemes="rope,pi", sweep__learning_rate=rates, eval__multiples=(1,))
    one, _ = comparison(config(corpus, **changes), tmp_path)
    assert [point.name for point in one.points] == [f"rope/rate{rate}/seed0" for rate in rates]
    assert run_points(one) == []
    tried = one.rates()
    assert tried.keys() == {"rope"}
    evaluations, training = one.evaluations(), one.costs()
    assert {r["scheme"] for r in training} == {"rope", "pi"} and len(evaluations) == 1
    for scheme, losses in tried.items():
        best = min(losses, key=losses.get)
        assert losses[best] < max(losses.values())
        run = json.loads((tmp_path / f"runs/{scheme}/rate{best:g}/seed0/run.json").read_text())
        assert run["config"]["train"]["learning_rate"] == best
        final = next(r["final_loss"] for r in training if r["scheme"] == scheme)
        assert final == pytest.approx(losses[best], rel=1e-6)  # six steps have one line
    page = one.write_report("the command").read_text()
    assert "Learning rates" in page and f"{min(tried['rope'].values()):.3f}" in page
    (tmp_path / "runs/rope/rate0.001/seed0/metrics.jsonl").write_text("")
    later, _ = comparison(config(corpus, **changes), tmp_path)
    assert later.rates()["rope"][1e-3] == math.inf
    page = later.write_report("the command").read_text()
    assert re.search("<td[^>]*>no result", page) and "not finite" not in page


def test_another_evaluation_uses_the_trained_checkpoint(workdir, corpus):
    changes = dict(schemes="alibi", eval__documents=1, eval__multiples=(1,), eval__strides=())
    other, _ = comparison(config(corpus, **changes), workdir)
    assert run_points(other) == [] and len(other.evaluations()) == 1
    metrics = (workdir / "runs/alibi/seed0/metrics.jsonl").read_text().splitlines()
    assert len(metrics) == 1, "trained again"
