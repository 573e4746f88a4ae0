"""Tests the table of what studies have measured: its windowed rows, gains, tasks and verdicts."""

import math

import pytest
from study_records import pack, panel_study, results, text_records

from experiments.results import answers
from experiments.results.answers import AGAINST, OWN_WINDOW, TASKS, by_question, judged
from experiments.results.lengths import WINDOWED
from experiments.results.reports.multimodal_tables import TABLES, read
from experiments.results.reports.sources import read_extension


def row(values, question, scheme):
    table, _ = judged(values)
    return table.set_index(["question", "scheme"]).loc[(question, scheme)].to_dict()


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


@pytest.mark.parametrize("by_text", [False, True])
def test_what_diverged_is_not_averaged(by_text):
    """In JSON a number that is not finite is null, and so is the loss of each of its texts."""
    records = text_records(by_text=by_text, rope=2.0, alibi=1.0)
    records[-5] |= {"bits_per_byte": None, "loss": None}
    if by_text:
        records[-5]["by_text"] = [None, None]
    values = answers.of_text(records, 64)
    alibi = row(values, "text 2x", "alibi")
    assert alibi["mean"] == math.inf and alibi["vs_rope"] == "diverged"
    assert row(values, "gain 2x", "alibi")[f"vs_{OWN_WINDOW}"] == "diverged"
    assert row(values, "gain 2x", "rope")[f"vs_{OWN_WINDOW}"] == "better"


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


# Results of other experiments


def rows(values):
    """Returns the answers by scheme, topic and multiple."""
    return by_question(judged(values)[0])


def test_the_columns_of_the_tables_are_answers(tmp_path):
    images, pointing, video, story = TABLES
    # Seeds differ far more than the schemes do under each of them.
    seeds = dict(nope=(0.4, 0.6, 0.8), good=(0.45, 0.651, 0.85), even=(0.39, 0.61, 0.8))
    pack(tmp_path / "images.tar.xz", results(images, **seeds))
    pack(tmp_path / "pointing.tar.xz", results(pointing, **seeds))
    pack(tmp_path / "video.tar.xz", results(video, vanilla=seeds["nope"], good=seeds["good"]))
    pack(tmp_path / "story.tar.xz", results(story, frame_index=seeds["nope"], good=(None,) * 3))
    actual = rows(read(tmp_path))
    good = actual["good", "images, pasted 84", 0]
    assert good["mean"] == pytest.approx(0.65033, rel=1e-4)
    assert good["margin"] == pytest.approx(4.303 * 0.11547, rel=1e-3)  # Student's t
    assert good["vs_nope"] == "better" and not good["is_error"]
    assert actual["even", "images, 28", 0]["vs_nope"] == "no difference"
    assert good["chance"] == 0.1 and good["unit"] == "accuracy"
    assert actual["good", "video, 32 frames", 0]["vs_rope"] == "better"
    assert ("vanilla", "video, 32 frames", 0) not in actual
    # Lower is better in story time, and chance is the greatest error.
    lost = actual["good", "story time, from time 64", 0]
    assert lost["vs_rope"] == "diverged" and lost["chance"] != lost["chance"]


def test_a_model_made_longer_is_compared_with_the_plain_one_through_a_window(tmp_path):
    head = "steps,seed,scheme,split,protocol,stride,multiple,length,bits_per_byte,tokens\n"
    lines = [
        f"0,{seed},{scheme},{split},{protocol},,{multiple},{64 * multiple},{bits + seed},9\n"
        for seed in range(3)
        for scheme, bits in (("rope", 2.0), ("yarn", 1.5 - 0.01 * seed), ("pi", float("inf")))
        for split, protocol, multiple in (
            ("test", "last", 2),
            ("manual", "last", 2),
            ("test", "windowed", 1),
        )
        if protocol == "last" or scheme == "rope"
    ]
    path = tmp_path / "records.csv"
    path.write_text(head + "".join(lines))
    actual = rows(read_extension(path))
    topic = "made longer, 0 steps"
    assert {scheme for scheme, _, _ in actual} == {"rope", "yarn", "pi", WINDOWED}
    yarn = actual["yarn", topic, 2]
    assert yarn["vs_rope"] == yarn[f"vs_{WINDOWED}"] == "better"
    assert actual["pi", topic, 2]["vs_rope"] == "diverged"
