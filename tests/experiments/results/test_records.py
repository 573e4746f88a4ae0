"""Tests records of runs that are damaged, incomplete, or of more than is asked for."""

import json
import re

import common
import pytest
from tiny_runs import comparison, config, full_disk

from experiments.results import seal
from experiments.results.environment import environment
from experiments.results.metrics import Metrics
from experiments.results.record import RefusedError, read_run, write_files, write_json
from experiments.running.pool import run_points
from experiments.running.status import print_status


@pytest.mark.parametrize("torn", [b"\xff\xfe\x00", b"{}"])
def test_a_damaged_evaluation_is_made_again(workdir, corpus, torn, monkeypatch):
    path = workdir / "runs/alibi/seed0/evaluation.json"
    whole = json.loads(path.read_text())
    path.write_bytes(torn)
    one, _ = comparison(config(corpus), workdir)
    assert len(one.evaluations()) == 1, "the report is made of the others"
    again = {key: whole[key] for key in ("records", "curves")}
    monkeypatch.setattr(one, "evaluate", lambda *_: again)
    assert run_points(one) == [] and len(one.evaluations()) == 2
    assert json.loads(path.read_text())["records"] == whole["records"]


def test_an_evaluation_of_more_extensions_is_not_made_again(workdir, corpus, monkeypatch):
    """Nor is what it has of the others lost, or reported."""
    path = workdir / "runs/rope/seed0/evaluation.json"
    before = path.read_bytes()
    one, _ = comparison(config(corpus, schemes="rope,alibi"), workdir)
    monkeypatch.setattr(one, "evaluate", lambda *_: pytest.fail("evaluated again"))
    assert run_points(one) == [] and path.read_bytes() == before
    evaluations, training = one.evaluations(), one.costs()
    lists = [[r for e in evaluations for r in e[key]] for key in ("records", "curves")]
    for records in (*lists, training):
        assert {record["scheme"] for record in records} == {"rope", "alibi"}


@pytest.mark.parametrize("torn", ["{", "null", '{"config": 3}'])
def test_what_is_no_record_of_a_run_is_damaged(workdir, corpus, torn):
    """Only its own point fails, with a sentence, in the report and in the state too."""
    (workdir / "runs/alibi/seed0/run.json").write_text(torn)
    one, output = comparison(config(corpus), workdir)
    assert len(one.evaluations()) == 1
    print_status(one, one.console)
    assert "alibi/seed0/run.json is damaged" in " ".join(output.getvalue().split())
    (failure,) = run_points(one)
    assert "run.json is damaged" in failure["reason"] and failure["scheme"] == "alibi"
    (workdir / "runs/alibi/seed0/run.json").unlink()
    (failure,) = run_points(one)
    assert "no run.json" in failure["reason"], "whose are the checkpoints?"


# Files that do not fit a run are noticed


FIELDS = {"config": dict, "training": dict}
EVALUATION = {"config": {"a": 1}, "training": {"steps": 1}, "records": [{"loss": 2.5}]}


@pytest.fixture
def folder(tmp_path):
    return sealed_in(tmp_path / "rope", "rope")


def sealed_in(folder, scheme):
    write_json(folder / "run.json", {"config": {"scheme": scheme, "seed": 0}} | environment())
    (folder / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n')
    seal.write_evaluation(folder, EVALUATION)
    return folder


def changed(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize(("old", "new"), [("2.5", "2.6"), ('"seal"', '"sea"')])
def test_a_changed_evaluation_is_refused_by_its_path(folder, old, new):
    assert seal.read_evaluation(folder, FIELDS, read_run(folder)) == EVALUATION
    changed(folder / "evaluation.json", old, new)
    with pytest.raises(ValueError, match=r"evaluation\.json"):
        seal.read_evaluation(folder, FIELDS, read_run(folder))


def test_an_evaluation_of_another_run_is_refused(folder, tmp_path):
    other = sealed_in(tmp_path / "alibi", "alibi")
    (other / "evaluation.json").replace(folder / "evaluation.json")
    common.refuses("another run", lambda: seal.read_evaluation(folder, FIELDS, read_run(folder)))


@pytest.mark.parametrize("is_lost", [False, True])
def test_other_metrics_are_refused_and_not_sealed_anew(folder, is_lost):
    if is_lost:
        (folder / "metrics.jsonl").unlink()
    else:
        changed(folder / "metrics.jsonl", "2.0", "1.0")
    with pytest.raises(ValueError, match=r"metrics\.jsonl"):
        seal.read_evaluation(folder, FIELDS, read_run(folder))
    common.refuses(r"metrics\.jsonl", lambda: seal.check_metrics(folder), RefusedError)


def refused(path):
    """Expects the sentence about a file that a full disk has refused."""
    sentence = rf"^{re.escape(str(path))} could not be .*too large.* the same command goes on$"
    return pytest.raises(OSError, match=sentence)


def test_a_full_disk_leaves_old_files_and_is_told_with_the_name_of_the_file(tmp_path):
    old = {"a.json": "1", "b.json": "2"}
    write_files(tmp_path, old)
    with refused(tmp_path / "b.json"), full_disk():
        write_files(tmp_path, {"a.json": "3", "b.json": "longer"})
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == old


def test_a_line_that_a_full_disk_has_cut_off_is_not_read(tmp_path):
    path = tmp_path / "metrics.jsonl"
    metrics = Metrics(path, 0)
    metrics.write(step=1, loss=1.0)
    with full_disk(30):
        with refused(path):
            metrics.write(step=2, loss=2.0)
        with refused(path):
            metrics.close()
    assert path.read_text().splitlines()[1], "half a line is there"
    metrics = Metrics(path, 2)
    metrics.close()
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1]
