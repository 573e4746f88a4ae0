"""Tests the study of runs in phases, and comparisons on packed rows, at a size of seconds."""

import json

import pytest
import tiny_runs as runs

from configs.phases import get_config
from experiments.pretrained.trained import load_run
from experiments.running.pool import run_points
from experiments.running.study import recipe_fields
from posenc_jax.encodings.rotary.frequencies.yarn import YaRNFrequencies

SHORT, LONG = 32, 128


@pytest.fixture(scope="module")
def phased(corpus, tmp_path_factory):
    """Runs one variant, on packed rows, and writes the report."""
    workdir = tmp_path_factory.mktemp("phased")
    changes = dict(corpus=corpus, schemes="longer_yarn", data__packing="documents")
    one = runs.study("phases", workdir, train__steps=4, plans__longer_yarn=HALVES, **changes)
    assert run_points(one) == []
    return one, one.write_report("the command")


HALVES = (
    (0.5, {"window": 8}),
    (0.5, {"length": LONG, "encoding": {"name": "yarn", "factor": "ratio"}}),
)


def test_a_run_in_phases_is_recorded_evaluated_and_read_back(phased):
    one, page = phased
    folder = one.folder(one.points[0])
    recorded = json.loads((folder / "run.json").read_text())["config"]
    assert [phase["share"] for phase in recorded["train"]["phases"]] == [0.5, 0.5]
    assert recorded["data"] == {"packing": "documents", "restart": True}
    state, _ = load_run(folder)
    encoding, window = state.model.layer_at(0)
    assert encoding.frequencies == YaRNFrequencies(SHORT, factor=4) and window is None
    assert "longer_yarn" in page.read_text() and one.is_done(one.points[0])


def test_all_variants_have_the_same_tokens_and_end_as_planned(corpus, tmp_path):
    config = get_config("tiny")
    one = runs.study("phases", tmp_path, corpus=corpus)
    assert [point.scheme for point in one.points] == config.schemes.split(",")
    recipes = {point.scheme: one.recipe_of(point) for point in one.points}
    for recipe in recipes.values():
        phases = [recipe.in_phase(number) for number in range(len(recipe.phases))]
        assert {phase.length * phase.batch_size for phase in phases} == {32 * SHORT}
        assert sum(recipe.steps_of_parts) == 10
    lengths = {name: recipe.in_phase(-1).length for name, recipe in recipes.items()}
    assert lengths == dict.fromkeys(recipes, LONG) | {"rope": SHORT}
    assert [phase.window for phase in recipes["wider"].phases] == [SHORT, 0]


def test_runs_that_are_older_than_phases_and_packing_are_found_again(corpus, tmp_path):
    one, _ = runs.comparison(runs.config(corpus), tmp_path)
    described = one.describe(one.points[0])
    assert "data" not in described and "phases" not in described["train"]
    assert described["train"] == recipe_fields(one.recipe)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"plans__longer": ((0.9, {}),)}, r"train\.phases have the shares"),
        (
            {"plans__rope": ((0.5, {}), (0.5, {"length": 1024}))},
            r"train\.phases\[1\]\.batch_size=1",
        ),
        ({"plans__rope": ((1.0, {"encoding": {"name": "yam"}}),)}, "yam"),
        ({"plans__rope": ((0.5, {}), (0.5, {"encoding": {"name": "fire"}}))}, "other arrays"),
        (
            {"train__batch_size": 512, "plans__rope": ((0.5, {}), (0.5, {"length": 2048}))},
            "2049 tokens",
        ),
        ({"data__packing": "rows"}, r"data\.packing='rows'"),
    ],
)
def test_a_plan_that_does_not_fit_is_refused_before_anything_is_trained(
    corpus, tmp_path, changes, why
):
    with pytest.raises(ValueError, match=why):
        runs.study("phases", tmp_path, corpus=corpus, **changes)
    assert not (tmp_path / "runs").exists()
