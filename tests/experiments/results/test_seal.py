"""Tests that files which do not fit a run are noticed."""

import pytest

from experiments.results import seal
from experiments.results.environment import environment
from experiments.results.record import RefusedError, read_run, write_json

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


def test_a_file_is_read_as_it_was_written(folder):
    assert seal.read_evaluation(folder, FIELDS, read_run(folder)) == EVALUATION
    seal.check_metrics(folder)


@pytest.mark.parametrize(
    ("old", "new"),
    [("2.5", "2.6"), ('"a": 1', '"a": 2'), ('"content": "', '"content": "0')],
)
def test_a_changed_evaluation_is_refused_by_its_path(folder, old, new):
    changed(folder / "evaluation.json", old, new)
    with pytest.raises(ValueError, match=r"evaluation\.json"):
        seal.read_evaluation(folder, FIELDS, read_run(folder))


def test_an_evaluation_of_another_run_is_refused(folder, tmp_path):
    other = sealed_in(tmp_path / "alibi", "alibi")
    (other / "evaluation.json").replace(folder / "evaluation.json")
    with pytest.raises(ValueError, match="another run"):
        seal.read_evaluation(folder, FIELDS, read_run(folder))


@pytest.mark.parametrize("is_lost", [False, True])
def test_other_metrics_are_refused_and_not_sealed_anew(folder, is_lost):
    if is_lost:
        (folder / "metrics.jsonl").unlink()
    else:
        changed(folder / "metrics.jsonl", "2.0", "1.0")
    with pytest.raises(ValueError, match=r"metrics\.jsonl"):
        seal.read_evaluation(folder, FIELDS, read_run(folder))
    with pytest.raises(RefusedError, match=r"metrics\.jsonl"):
        seal.check_metrics(folder)


def test_files_of_earlier_versions_are_read_and_named_once(folder, caplog):
    write_json(folder / "evaluation.json", EVALUATION)
    seal._say_once.cache_clear()
    for _ in range(2):
        assert seal.read_evaluation(folder, FIELDS, read_run(folder)) == EVALUATION
        seal.check_metrics(folder)
    assert len([record for record in caplog.records if "earlier version" in record.message]) == 1
