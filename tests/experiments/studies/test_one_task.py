"""Tests models that learn one task each: curriculum, goal, and what is reported of them."""

import jax
import numpy as np
import pandas as pd
import pytest
from tiny_runs import study

from experiments.results.learning import rows_of, summary
from experiments.results.panels import ANSWERS, EXACT
from experiments.results.record import read_lines
from experiments.running.points import Point
from experiments.running.schedule import run_points
from experiments.studies.tasks.task import PAD


def test_short_rows_come_first(tmp_path):
    one = study("learned.copy", tmp_path, task__growing=100)
    task = one.task(Point("rope", 0, ()))
    lengths = [one.longest(step) for step in range(200)]
    assert lengths[0] == 6 and lengths[100:] == [20] * 100
    assert (np.diff(lengths) >= 0).all() and lengths[50] == 13
    for step in (1, 30, 60, 150):
        batch = task.batch(0, step, 0, 1)
        ends = (batch["tokens"] != PAD).sum(axis=1)
        assert ends.min() >= 6 and ends.max() <= lengths[step]
        assert (batch["is_answer"].sum(axis=1) == (ends - 2) // 2).all()
    drawn = [(task.batch(0, step, 0, 1)["tokens"] != PAD).sum(axis=1) for step in range(100, 130)]
    assert {*np.concatenate(drawn)} == {*range(6, 21)}


def test_the_goal_is_read_from_rows_of_the_trained_length(tmp_path, monkeypatch):
    one, read = study("learned.copy", tmp_path, task__held_out=40), []
    share = "experiments.studies.tasks.one_task._share"
    monkeypatch.setattr(share, lambda _, rows: read.append(rows) or 0.5)
    goals = [one.goal(Point(scheme, seed, ())) for scheme, seed in (("rope", 0), ("nope", 1))]
    assert [goal.measured(None) for goal in goals] == [{"score": 0.5}] * 2
    jax.tree.map(np.testing.assert_array_equal, *read)
    assert read[0]["tokens"].shape == (40, 20) and (read[0]["tokens"] != PAD).all()
    assert (goals[0].enough, goals[0].every) == (0.95, 2)


def evaluation(scheme, seed, shares, steps):
    whose = {"scheme": scheme, "seed": seed}
    records = [
        whose | {"condition": "copy", "x": x, "metric": metric, "value": share, "chance": chance}
        for x, value in shares.items()
        for metric, share, chance in ((EXACT, value, 0.03), (ANSWERS, (1 + value) / 2, 0.5))
    ]
    steps_to = {"0.9": steps, "0.95": None}
    return {"records": records, "steps_to": steps_to, "training": {"steps": 500}}


def test_a_scheme_counts_where_most_of_its_models_have_learned():
    evaluations = [
        evaluation("none", 0, {16: 0.89, 32: 1.0}, 100),
        evaluation("half", 0, {16: 0.9, 32: 0.75}, 100),
        evaluation("half", 1, {16: 0.2, 32: 0.75}, 100),
        evaluation("most", 0, {16: 0.95, 32: 0.5}, 1300),
        evaluation("most", 1, {16: 1.0, 32: 0.25}, 200),
        evaluation("most", 2, {16: 0.5, 32: 0.4}, None),
    ]
    values = pd.DataFrame(rows_of("study", "copy", evaluations))
    assert len(values) == 24 and (values["is_trained"] == (values["tokens"] == 16)).all()
    table = summary(values)
    no = "not learned"
    assert table.to_dict("split") == {
        "index": ["most", "half", "none", "chance"],
        "columns": ["learned", "steps to 90%", "steps to 95%", "copy, 16", "copy, 32"],
        "data": [
            ["2 of 3", "200 1,300", "-", "95 100", "25 50"],
            ["1 of 2", "100 100", "-", no, no],
            ["0 of 1", "100", "-", no, no],
            ["", "", "", "3", "3"],
        ],
    }

    answers = summary(values, ANSWERS)
    assert [*answers["copy, 16"]] == ["98 100", no, no, "50"]
    assert [*answers["copy, 32"]] == ["62 75", no, no, "50"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    one = study("learned", tmp_path_factory.mktemp("learned"), studies__copy__schemes="nope")
    assert run_points(one.parts) == []
    return one, one.write_report("the command").read_text()


@pytest.mark.slow
def test_the_report_says_what_is_learned(finished):
    one, page = finished
    part = one.parts["copy"]
    (run,) = part.evaluations()
    assert run["steps_to"] == {"0.9": None, "0.95": None}
    lines = read_lines(part.folder(part.points[0]) / "metrics.jsonl")
    assert [line["step"] for line in lines if "score" in line] == [2, 4]
    assert "<td>0 of 1<td>-<td>-<td>not learned" in page and "addition_coupled" in page
    values = pd.read_csv(one.workdir / "learned.csv")
    assert {*zip(values["study"], values["scheme"], values["tokens"], strict=True)} == {
        *(("copy", "nope", length) for length in (20, 40)),
        *(("addition_coupled", "shaw", length) for length in (20, 40)),
    }
