"""Tests models that learn one task each: curriculum, goal, and what is reported of them."""

import math

import numpy as np
import pytest
from tiny_runs import study

from experiments.results.panels import ANSWERS, EXACT, learned_table, steps_to
from experiments.results.record import read_lines
from experiments.results.table import select, tidy
from experiments.running.points import Point
from experiments.running.pool import run_points
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


def model(scheme, seed, shares, steps):
    """Returns the rows of a tidy table about one model, by the shares of rows that it has right."""
    row = dict(scheme=scheme, seed=seed, split="copy")
    to = {steps_to(0.9): steps, steps_to(0.95): math.inf}
    rows = [row | dict(measure=name, x=16, value=value) for name, value in to.items()]
    for x, value in shares.items():
        rows.append(row | dict(measure=EXACT, x=x, value=value))
        rows.append(row | dict(measure=ANSWERS, x=x, value=(1 + value) / 2))
    return rows


def test_a_scheme_counts_where_most_of_its_models_have_learned():
    rows = [
        *model("none", 0, {16: 0.89, 32: 1.0}, 100),
        *model("half", 0, {16: 0.9, 32: 0.75}, 100),
        *model("half", 1, {16: 0.2, 32: 0.75}, 100),
        *model("most", 0, {16: 0.95, 32: 0.5}, 1300),
        *model("most", 1, {16: 1.0, 32: 0.25}, 200),
        *model("most", 2, {16: 0.5, 32: 0.4}, math.inf),
    ]
    frame, no = tidy("study", rows), "not learned"
    assert learned_table("study", frame, "copy").cells.to_dict("split") == {
        "index": ["most", "half", "none"],
        "columns": ["learned", "steps to 90%", "steps to 95%", "copy, 16", "copy, 32"],
        "data": [
            ["2 of 3", "200 1,300", "-", "95 100", "25 50"],
            ["1 of 2", "100 100", "-", no, no],
            ["0 of 1", "100", "-", no, no],
        ],
    }
    answers = learned_table("study", frame, "copy", ANSWERS).cells
    assert [*answers["copy, 16"]] == ["98 100", no, no]


@pytest.mark.slow
def test_the_report_says_what_is_learned(tmp_path):
    one = study("learned", tmp_path, studies__copy__schemes="nope")
    assert run_points(one) == []
    page = one.write_report("the command").read_text()
    part = one.parts["copy"]
    (run,) = part.evaluations()
    assert run["steps_to"] == {"0.9": None, "0.95": None}
    lines = read_lines(part.folder(part.points[0]) / "metrics.jsonl")
    assert [line["step"] for line in lines if "score" in line] == [2, 4]
    assert "not learned" in page and "addition_coupled" in page
    rows = select(one.frame(), measure=(EXACT, "steps to 90%"))
    assert {*zip(rows["study"], rows["scheme"], rows["x"], strict=True)} == {
        *(("copy", "nope", length) for length in (20, 40)),
        *(("addition_coupled", "shaw", length) for length in (20, 40)),
    }
