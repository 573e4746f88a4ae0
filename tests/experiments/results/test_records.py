"""Tests records of runs that are damaged, incomplete, or of more than is asked for."""

import json
import re

import pytest
from runs import comparison, config

from experiments.running.schedule import run_points
from experiments.running.status import print_status


def printed_status(one, output) -> str:
    """Returns what the state of the points is said to be, on one line."""
    print_status(one, one.console)
    return " ".join(output.getvalue().split())


@pytest.mark.parametrize("torn", [b"\xff\xfe\x00", b"{}"])
def test_a_damaged_evaluation_is_made_again(workdir, corpus, torn, monkeypatch):
    path = workdir / "runs/alibi/seed0/evaluation.json"
    whole = json.loads(path.read_text())
    path.write_bytes(torn)
    one, _ = comparison(config(corpus), workdir)
    assert len(one.results()[0]) == 1, "the report is made of the others"
    again = {key: whole[key] for key in ("records", "curves")}
    monkeypatch.setattr(one, "evaluate", lambda *_: again)
    assert run_points(one.parts) == [] and len(one.results()[0]) == 2
    assert json.loads(path.read_text())["records"] == whole["records"]


def test_an_evaluation_of_more_extensions_is_not_made_again(workdir, corpus, monkeypatch):
    """Nor is what it has of the others lost, or reported."""
    path = workdir / "runs/rope/seed0/evaluation.json"
    before = path.read_bytes()
    one, _ = comparison(config(corpus, schemes="rope,alibi"), workdir)
    monkeypatch.setattr(one, "evaluate", lambda *_: pytest.fail("evaluated again"))
    assert run_points(one.parts) == [] and path.read_bytes() == before
    evaluations, training, _ = one.results()
    for key in ("records", "curves"):
        assert {record["scheme"] for evaluation in evaluations for record in evaluation[key]} == {
            "rope",
            "alibi",
        }
    assert {record["scheme"] for record in training} == {"rope", "alibi"}


def test_a_run_that_has_lost_what_it_is_of_is_refused(finished, workdir, corpus):
    folder = workdir / "runs/rope/seed0"
    (folder / "run.json").unlink()
    (workdir / "runs/alibi/seed0/run.json").write_text("{")
    reasons = {
        f["scheme"]: f["reason"] for f in run_points(comparison(config(corpus), workdir)[0].parts)
    }
    assert "has checkpoints, but no run.json" in reasons["rope"]
    assert re.search(r"alibi/seed0/run.json is damaged", reasons["alibi"])
    (folder / "run.json").write_bytes((finished / "runs/rope/seed0/run.json").read_bytes())
    (folder / "evaluation.json").unlink()
    (folder / "metrics.jsonl").unlink()
    reasons = {
        f["scheme"]: f["reason"] for f in run_points(comparison(config(corpus), workdir)[0].parts)
    }
    assert "metrics.jsonl has lost the line of step 6" in reasons["rope"]


@pytest.mark.parametrize("torn", ["null", '{"config": 3}'])
def test_what_is_no_record_of_a_run_is_damaged(workdir, corpus, torn):
    """Only its own point fails, with a sentence, in the report and in the state too."""
    (workdir / "runs/alibi/seed0/run.json").write_text(torn)
    one, output = comparison(config(corpus), workdir)
    assert len(one.results()[0]) == 1
    assert "alibi/seed0/run.json is damaged" in printed_status(one, output)
    (failure,) = run_points(one.parts)
    assert "run.json is damaged" in failure["reason"] and failure["scheme"] == "alibi"
