"""Tests the comparison of schemes on text, at a size that runs in seconds."""

import json
import math

import common
import pytest
from tiny_runs import comparison, config

from configs.extrapolation import PRESETS, get_config
from experiments.results import table
from experiments.running.pool import run_points
from experiments.studies.text import points
from posenc_jax.registry import PATTERNS

SCHEMES = "rope", "yarn", "alibi"


def results_of(workdir):
    """Returns the numbers in a workdir, the mean over texts, by scheme, measure and multiple."""
    frame = table.by_seed(table.read(workdir / table.FILE))
    return table.select(frame, split="test").set_index(["scheme", "measure", "x"])["value"]


def test_results_hold_every_scheme_length_and_protocol(finished):
    page, bits = (finished / "report.html").read_text(), results_of(finished)
    for scheme in SCHEMES:
        for measure in ("last", "non_overlapping", "sliding, stride 8"):
            assert {(scheme, measure, 1), (scheme, measure, 2)} <= set(bits.index)
        assert (scheme, "windowed", 1) in bits.index and scheme in page


def test_an_extension_is_evaluated_on_the_checkpoint_it_extends(finished):
    assert sorted(p.name for p in (finished / "runs").iterdir()) == ["alibi", "rope"]
    bits = results_of(finished)
    # At the training length YaRN's factor is 1, which changes nothing; beyond it does.
    assert bits["yarn", "last", 1] == pytest.approx(bits["rope", "last", 1], abs=2e-6)
    assert bits["yarn", "last", 2] != pytest.approx(bits["rope", "last", 2], abs=2e-6)


def test_a_setting_that_could_have_no_effect_is_refused(corpus, tmp_path):
    changed = config(corpus, encodings__yarn__base=77.0)
    common.refuses("encodings.rope.base", lambda: comparison(changed, tmp_path))


WRITTEN_OUT = "global_nope", "beam", "flint"  # for any number of layers


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
    (tmp_path / "runs/rope/rate0.001/seed0/metrics.jsonl").write_text("")
    later, _ = comparison(config(corpus, **changes), tmp_path)
    assert later.rates()["rope"][1e-3] == math.inf
