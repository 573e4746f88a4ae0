"""Tests that results of experiments other than the atlas are read as tables of values."""

import pytest
from study_records import pack, results

from experiments.results.answers import summary, verdicts
from experiments.results.lengths import WINDOWED
from experiments.results.reports.multimodal_tables import TABLES, read
from experiments.results.reports.sources import read_extension


def rows(values):
    """Returns the answers by topic, multiple and scheme."""
    actual = summary(values, verdicts(values)).to_dict("records")
    return {(row["topic"], row["multiple"], row["scheme"]): row for row in actual}


def test_the_columns_of_the_tables_are_answers(tmp_path):
    images, pointing, video, story = TABLES
    # Seeds differ far more than the schemes do under each of them.
    seeds = dict(nope=(0.4, 0.6, 0.8), good=(0.45, 0.651, 0.85), even=(0.39, 0.61, 0.8))
    pack(tmp_path / "images.tar.xz", results(images, **seeds))
    pack(tmp_path / "pointing.tar.xz", results(pointing, **seeds))
    pack(tmp_path / "video.tar.xz", results(video, vanilla=seeds["nope"], good=seeds["good"]))
    pack(tmp_path / "story.tar.xz", results(story, frame_index=seeds["nope"], good=(None,) * 3))
    actual = rows(read(tmp_path))
    good = actual["images, pasted 84", 0, "good"]
    assert good["mean"] == pytest.approx(0.65033, rel=1e-4)
    assert good["margin"] == pytest.approx(4.303 * 0.11547, rel=1e-3)  # Student's t
    assert good["vs_nope"] == "better" and not good["is_error"]
    assert actual["images, 28", 0, "even"]["vs_nope"] == "no difference"
    assert good["chance"] == 0.1 and good["unit"] == "accuracy"
    assert actual["video, 32 frames", 0, "good"]["vs_rope"] == "better"
    assert ("video, 32 frames", 0, "vanilla") not in actual
    # Lower is better in story time, and chance is the greatest error.
    lost = actual["story time, from time 64", 0, "good"]
    assert lost["vs_rope"] == "diverged" and lost["chance"] != lost["chance"]


def test_a_model_made_longer_is_compared_with_the_plain_one_through_a_window(tmp_path):
    head = "steps,seed,scheme,split,protocol,stride,multiple,length,bits_per_byte\n"
    lines = [
        f"0,{seed},{scheme},{split},{protocol},,{multiple},{64 * multiple},{bits + seed}\n"
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
    assert {scheme for _, _, scheme in actual} == {"rope", "yarn", "pi", WINDOWED}
    assert (
        actual[topic, 2, "yarn"]["vs_rope"]
        == actual[topic, 2, "yarn"][f"vs_{WINDOWED}"]
        == "better"
    )
    assert actual[topic, 2, "pi"]["vs_rope"] == "diverged"
