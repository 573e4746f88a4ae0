"""Tests the study of runs in phases, and comparisons on packed rows, at a size of seconds."""

import json

import tiny_runs as runs

from experiments.pretrained.trained import load_run
from experiments.running.pool import run_points
from posenc_jax.encodings.rotary.frequencies.yarn import YaRNFrequencies

SHORT, LONG = 32, 128


def test_a_run_in_phases_on_packed_rows_is_recorded_evaluated_and_read_back(corpus, tmp_path):
    longer = {"length": LONG, "encoding": {"name": "yarn", "factor": "ratio"}}
    plan = (0.5, {"window": 8}), (0.5, longer)
    changes = dict(corpus=corpus, schemes="longer_yarn", data__packing="documents")
    one = runs.study("phases", tmp_path, train__steps=4, plans__longer_yarn=plan, **changes)
    assert run_points(one) == []
    page = one.write_report("the command")
    folder = one.folder(one.points[0])
    recorded = json.loads((folder / "run.json").read_text())["config"]
    assert [phase["share"] for phase in recorded["train"]["phases"]] == [0.5, 0.5]
    assert recorded["data"] == {"packing": "documents", "restart": True}
    state, _ = load_run(folder)
    encoding, window = state.model.layer_at(0)
    assert encoding.frequencies == YaRNFrequencies(SHORT, factor=4) and window is None
    assert "longer_yarn" in page.read_text() and one.is_done(one.points[0])
