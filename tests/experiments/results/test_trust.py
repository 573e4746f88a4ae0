"""Tests that badges say of an answer how many seeds it has, and whether its order lasts."""

import pytest
from study_records import HIGH, LOW, panel_study, text_records

from experiments.results.answers import of_tasks, of_text, summary, verdicts
from experiments.results.reports import trust


def rung(values, tokens=1.0, length=0):
    return trust.Rung("rung", "", tokens, summary(values, verdicts(values)), length)


def test_badges_are_read_as_they_were_written(tmp_path):
    short = rung(of_text(text_records(rope=5.0, fox=1.0, t5=3.0, alibi=4.0), 64))
    longer = rung(of_text(text_records(fox=1.0, t5=0.5, alibi=0.3), 64), 2.0)
    trust.write(tmp_path / trust.JSON, [short, longer])
    told = trust.read(tmp_path / trust.JSON)
    assert told["text", 2.0] == [
        "3 seeds",
        "corrected",
        "rank reverses: rho -1.00 over 3 contenders",
    ]
    assert trust.words(told["text", 2.0]).startswith("`3 seeds` `corrected` `rank reverses")
    assert trust.read(tmp_path / "none.json") == {}


def test_a_badge_says_that_longer_training_has_one_seed():
    values = of_text(text_records(rope=5.0, fox=1.0, t5=3.0, alibi=4.0), 64)
    short, longer = rung(values), rung(values[values["seed"] == 0], 2.0)
    asked = ("text", 2.0)
    said = trust.badges([asked], short, trust.order(asked, short, [short, longer]))
    assert said[-1] == "rank lasts: rho 1.00 over 3 contenders, 1 seed"


def test_the_longest_training_says_whether_an_order_lasts():
    models = {"fox": 1.0, "t5": 2.0, "alibi": 3.0}
    rungs = [rung(of_text(text_records(**models), 64), tokens) for tokens in (1.0, 3.0, 2.0)]
    order = trust.order(("text", 2), rungs[0], rungs)
    assert order.lasts and order.longer is rungs[1]
    assert (order.rho, order.shared) == (pytest.approx(1), 3)
    assert trust.order(("text", 2), rungs[1], rungs).longer is None


def test_of_equally_many_tokens_those_in_longer_texts_are_the_longer_training():
    values = of_text(text_records(fox=1.0, t5=2.0, alibi=3.0), 64)
    rungs = [rung(values, 1.0, length) for length in (64, 1024, 256)]
    assert trust.order(("text", 2), rungs[0], rungs).longer is rungs[1]


def test_a_task_says_how_many_schemes_have_learned_it():
    one = rung(of_tasks(panel_study(rope=(LOW, HIGH), t5=(HIGH, LOW))))
    said = trust.of_questions([one])["copy"]["2"]
    assert said == ["3 seeds", "learned by 1 of 2", "rank: untested"]
