"""Tests that answers of experiments beside the atlas are compared seed by seed."""

import pytest
from test_tables import pack, results

from experiments.results.reports.multimodal_tables import TABLES
from experiments.results.reports.other_answers import (
    LONGER,
    read_extension,
    read_longer,
    read_tables,
)


def test_the_columns_of_the_tables_are_compared_seed_by_seed(tmp_path):
    images, _, video, story = TABLES
    # Seeds differ far more than the schemes do under each of them.
    seeds = dict(nope=(0.4, 0.6, 0.8), good=(0.45, 0.651, 0.85), even=(0.39, 0.61, 0.8))
    pack(tmp_path / "images.tar.xz", results(images, **seeds))
    pack(tmp_path / "video.tar.xz", results(video, vanilla=seeds["nope"], good=seeds["good"]))
    pack(tmp_path / "story.tar.xz", results(story, frame_index=seeds["nope"], good=(None,) * 3))
    found = {(a["topic"], a["scheme"]): a for a in read_tables(tmp_path)}
    good = found["images, pasted 84", "good"]
    # Student's t of 2 degrees of freedom.
    assert good["mean"] == pytest.approx(0.65033, rel=1e-4)
    assert good["margin"] == pytest.approx(4.303 * 0.11547, rel=1e-3)
    assert good["vs_nope"] == "better" and good["vs_rope"] is None and not good["is_error"]
    assert found["images, 28", "even"]["vs_nope"] == "no difference"
    assert good["chance"] == 0.1 and (good["unit"], good["multiple"]) == ("accuracy", 0)
    assert found["video, 32 frames", "good"]["vs_rope"] == "better"
    assert ("video, 32 frames", "vanilla") not in found
    # Lower is better in story time, and chance is the greatest error.
    lost = found["story time, from time 64", "good"]
    assert lost["mean"] is None and lost["vs_rope"] == "worse" and lost["chance"] is None
    assert found["story time, 4x", "rope"]["mean"] == pytest.approx(0.6)
    assert not any(topic.startswith("pointing") for topic, _ in found)
    assert read_tables(tmp_path / "none") == []


def test_records_of_longer_models_are_compared_seed_by_seed(tmp_path):
    head = "steps,seed,scheme,split,protocol,multiple,bits_per_byte\n"
    rows = [
        f"0,{seed},{scheme},{split},{protocol},2.0,{bits + seed}\n"
        for seed in range(3)
        for scheme, bits in (("rope", 2.0), ("yarn", 1.5 - 0.01 * seed), ("pi", float("inf")))
        for split, protocol in (("test", "last"), ("manual", "last"), ("test", "short"))
    ]
    path = tmp_path / "records.csv"
    path.write_text(head + "".join(rows))
    found = {a["scheme"]: a for a in read_extension(path)}
    assert len(found) == 3 == len(read_extension(path))
    yarn = found["yarn"]
    assert (yarn["topic"], yarn["multiple"]) == ("made longer, 0 steps", 2.0)
    assert yarn["vs_rope"] == "better" and yarn["vs_nope"] is None  # each seed with itself
    assert found["pi"]["mean"] is None and found["pi"]["vs_rope"] == "worse"
    assert read_extension(tmp_path / "none.csv") == []


def test_longer_training_has_losses_and_gains_over_the_window_of_the_trained_length(tmp_path):
    bits = {("last", 1): 1.5, ("last", 4): 1.2, ("windowed", 1): 1.3}
    records = [
        dict(scheme="fox", seed=seed, split="test", protocol=protocol, multiple=multiple)
        | dict(length=256 * multiple, bits_per_byte=value + seed)
        for seed in range(3)
        for (protocol, multiple), value in bits.items()
    ]
    pack(tmp_path / "long.tar.xz", records)
    *losses, gain = read_longer(tmp_path / "long.tar.xz")
    found = [(loss["topic"], loss["multiple"], loss["mean"]) for loss in losses]
    topic = f"text, {LONGER}"
    assert found == [(topic, 1, pytest.approx(2.5)), (topic, 4, pytest.approx(2.2))]
    assert (gain["topic"], gain["multiple"]) == (f"gain, {LONGER}", 4)
    assert gain["mean"] == pytest.approx(0.1) and gain["margin"] == pytest.approx(0.0, abs=1e-9)
    assert gain["vs_rope"] is None and read_longer(tmp_path / "none.tar.xz") == []
