"""Tests the table of what studies have measured: its windowed rows, gains, tasks and verdicts."""

import math

import pytest
from study_records import panel_study, text_records

from experiments.results import answers
from experiments.results.answers import AGAINST, OWN_WINDOW, TASKS, summary, verdicts
from experiments.results.lengths import WINDOWED


def row(values, question, scheme):
    table = summary(values, verdicts(values))
    (actual,) = table[(table["question"] == question) & (table["scheme"] == scheme)].to_dict(
        "records"
    )
    return actual


def test_rope_through_a_window_is_what_the_others_are_compared_with():
    values = answers.of_text(text_records(nope=3.0, rope=2.0, alibi=1.0), 64)
    bits = values.groupby(["question", "scheme"])["value"].agg(list)
    assert bits["text 1x", WINDOWED] == bits["text 1x", "rope"]
    assert bits["text 2x", WINDOWED] == pytest.approx([2.5, 2.51, 2.52])
    assert bits["text, windowed 1x", WINDOWED] == bits["text 2x", WINDOWED]
    alibi = row(values, "text 2x", "alibi")
    assert [alibi[f"vs_{name}"] for name in AGAINST] == ["better"] * 3
    assert alibi[f"vs_{WINDOWED}_difference"] == pytest.approx(1.49)
    assert math.isnan(alibi["solved"]) and math.isnan(row(values, "text 2x", "rope")["vs_rope_p"])
    with pytest.raises(ValueError, match="rope, seed 0, text 1x"):
        answers.of_text(text_records(rope=2.0) * 2, 64)


def test_a_gain_is_over_the_same_model_without_what_came_before():
    values = answers.gains(text_records(rope=2.0, alibi=1.0))
    of_rope = values[(values["scheme"] == "rope") & (values["topic"] == "gain, manual")]
    assert of_rope["value"].tolist() == pytest.approx([0.5, 0.49, 0.48])
    assert set(values["multiple"]) == {2} and WINDOWED not in set(values["scheme"])
    gain = row(values, "gain 2x", "rope")
    assert gain[f"vs_{OWN_WINDOW}"] == "better" and not isinstance(gain["vs_rope"], str)
    assert gain["margin"] == gain[f"vs_{OWN_WINDOW}_margin"]


def test_losses_of_single_texts_are_rows_and_their_mean_is_the_answer():
    values = answers.of_text(text_records(by_text=True, rope=2.0, alibi=1.0), 64)
    assert len(values[values["question"] == "text 2x"]) == 3 * 3 * 2
    assert row(values, "text 2x", "rope")["mean"] == pytest.approx(2.02)
    gains = values[(values["question"] == "gain 2x") & (values["scheme"] == "rope")]
    assert gains["value"].tolist() == pytest.approx([0.5, 0.5, 0.49, 0.49, 0.48, 0.48])


def test_what_diverged_is_not_averaged():
    records = text_records(rope=2.0, alibi=1.0)
    records[-5]["bits_per_byte"] = None
    values = answers.of_text(records, 64)
    alibi = row(values, "manual 2x" if records[-5]["split"] == "manual" else "text 2x", "alibi")
    assert alibi["mean"] == math.inf and alibi["vs_rope"] == "diverged"


def test_a_task_counts_only_where_it_is_learned():
    study = panel_study(
        rope=((0.95, 0.92, 0.2), (0.5, 0.6, 0.2)),
        fox=((1.0, 1.0, 0.99), (0.99, 1.0, 0.98)),
        nope=((0.95, 0.8, 0.7), (0.9, 0.9, 0.9)),
    )
    values = answers.of_tasks(study)
    fox = row(values, "copy 2x", "fox")
    assert fox["learned"] and fox["solved"] == 3 and fox["family"] == TASKS
    assert fox["vs_rope"] in ("better", "no difference")
    assert not isinstance(fox["vs_nope"], str)  # it has not learned the task
    nope = row(values, "copy 2x", "nope")
    assert not nope["learned"] and nope["solved"] == 3 and not isinstance(nope["vs_rope"], str)
    first = row(values, "copy 1x", "rope")
    assert first["learned"] and first["solved"] == 2 and first["chance"] == 0.1
    assert not isinstance(row(values, "copy 1x", "fox")["vs_rope"], str)  # both are right
    assert answers.topics(study) == ["copy"]
