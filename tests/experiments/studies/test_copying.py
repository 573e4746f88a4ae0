"""Tests the study of copying: its runs, the onsets of known curves, and its figure."""

import numpy as np
import pandas as pd
import pytest
from tiny_runs import study

from experiments.results import onset, table
from experiments.running.pool import run_points


def curve(scheme, scores, losses=(3.0, 2.5, 2.0), seed=0, steps=3):
    """Returns the measurements of a run that was to be measured ``steps`` times."""
    run = dict(study="s", scheme=scheme, depth=2, rate=0.01, seed=seed)
    return [
        run | dict(step=n, tokens=100 * n, is_last=n == steps, measure=measure, value=value)
        for n, (score, loss) in enumerate(zip(scores, losses, strict=False), start=1)
        for measure, value in (("score", score), ("code/0", loss - 1), ("code/1", loss + 1))
    ]


RUNS = pd.DataFrame(
    curve("rope", (0.0, 0.05, 0.09))
    + curve("alibi", (0.0, 0.2, 0.3), (3.0, 2.4, 1.5))
    + curve("alibi", (0.0, 0.3), (3.0, 2.4), seed=1)  # which is not finished
    + curve("nope", (0.0,), (3.0,))
)


def test_onsets_of_known_curves():
    runs = onset.onsets(RUNS).set_index(["scheme", "seed"])
    assert runs["onset"].to_dict() == {
        ("alibi", 0): 200, ("alibi", 1): 200, ("nope", 0): 100, ("rope", 0): 300
    }  # fmt: skip
    assert list(runs["is_censored"]) == [False, False, True, True]
    assert list(runs["is_finished"]) == [True, False, False, True]
    ahead = onset.ahead(runs.reset_index()).set_index("scheme")["ahead"]
    assert ahead.to_dict() == {"alibi": pytest.approx(0.5), "rope": 0}


def test_a_model_of_two_studies_is_that_of_the_finished_one():
    begun = pd.DataFrame(curve("alibi", (0.0,))).assign(study="another")
    cells = onset.summary(pd.concat([begun, RUNS[RUNS["seed"] == 0]])).cells
    assert cells.loc["alibi"].tolist() == ["1 of 1, half by 0.0 M tokens"]


def test_a_run_that_ends_before_it_copies_may_copy_later():
    """Two runs copy at 1 and 3, and one is censored at 2: half of those left copy at 3."""
    runs = pd.DataFrame({"onset": [1, 2, 3], "is_censored": [False, True, False]})
    tokens, share = onset.share_that_copies(runs)
    np.testing.assert_array_equal(tokens, [0, 1, 2, 3])
    np.testing.assert_allclose(share, [0, 1 / 3, 1 / 3, 1])


def test_a_tiny_study_is_measured_on_its_way_and_drawn(tmp_path):
    experiment = study("copying", tmp_path)
    assert run_points(experiment) == []
    path = experiment.write_report("the command")
    assert path.read_text().startswith("<?xml")
    found = table.read(tmp_path / "copying.csv.gz")
    assert {*found["step"]} == {3, 6} and {*found["scheme"]} == {"rope", "alibi"}
    assert found["is_last"].sum() == (found["step"] == 6).sum()
    assert {"score", "test/0", "test/7"} <= {*found["measure"]}
