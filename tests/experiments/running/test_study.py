"""Tests how the points of a study are run: once each, and each by itself where one fails."""

import collections
import json
import shutil
from pathlib import Path

import common
import pytest
from tiny_runs import comparison, config, of_other_data, untrained

from experiments import preemption
from experiments.results.locks import claimed
from experiments.results.record import open_run
from experiments.running import study
from experiments.running.finished import missing_in
from experiments.running.pool import run_points
from experiments.running.status import print_status

# What is trained and evaluated where neither is the subject.
LITTLE = dict(train__steps=2, eval__multiples=(1,), eval__strides=())


def test_a_command_reads_each_file_of_a_finished_point_once(workdir, corpus, monkeypatch):
    one, _ = comparison(config(corpus), workdir)
    reads: collections.Counter[str] = collections.Counter()
    opened = Path.open

    def counted(path, *how, **more):
        reads[path.name] += path.exists()
        return opened(path, *how, **more)

    monkeypatch.setattr(Path, "open", counted)
    assert all(map(one.is_done, one.points)) and one.holes() == []
    one.check_data()
    one.write_report("the command")
    points = len(one.points)
    files = "evaluation.json", "run.json", "metrics.jsonl"
    assert [reads[name] for name in files] == [points] * 3


def test_an_extension_that_is_added_later_is_evaluated_on_the_model_that_is_there(
    first, corpus, tmp_path
):
    before = first.finished(first.points[0])["records"]
    more = config(corpus, schemes="rope,yarn", **LITTLE)
    later, peer = (comparison(more, tmp_path)[0] for _ in range(2))
    (point,) = later.points
    assert later.finished(point)["records"] == before
    assert missing_in(later.finished(point), point) == ("yarn",)
    assert later.holes() == peer.holes() == ["rope/seed0 lacks yarn"]
    assert "lacks yarn" in later.write_report("command").read_text()
    # Without its checkpoint, as from an archive, the point stays as it is.
    checkpoints = later.folder(point) / "checkpoints"
    aside = checkpoints.rename(tmp_path / "aside")
    assert later.is_done(point)
    aside.rename(checkpoints)
    assert run_points(later) == [] and later.holes() == peer.holes() == []
    records = later.finished(point)["records"]
    assert [r for r in records if r["scheme"] == "rope"] == before
    assert {r["scheme"] for r in records} == {"rope", "yarn"}
    lines = (later.folder(point) / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [2], "trained once"


@pytest.fixture
def first(corpus, tmp_path):
    """Returns a comparison of ``rope`` alone, which has ended."""
    one, _ = comparison(config(corpus, schemes="rope", **LITTLE), tmp_path)
    assert run_points(one) == []
    return one


def test_other_evaluation_settings_do_not_train_a_restored_run_anew(first, corpus, tmp_path):
    folder = first.folder(first.points[0])
    shutil.rmtree(folder / "checkpoints")  # an archive has none
    before = [(folder / name).read_text() for name in ("metrics.jsonl", "evaluation.json")]
    settings = LITTLE | dict(eval__multiples=(1, 2))
    other, _ = comparison(config(corpus, schemes="rope", **settings), tmp_path)
    (failure,) = run_points(other)
    assert "no checkpoint to evaluate again" in failure["reason"]
    assert [(folder / n).read_text() for n in ("metrics.jsonl", "evaluation.json")] == before
    assert first.finished(first.points[0]) is not None


def test_results_of_other_settings_are_not_replaced_in_silence(first, corpus, tmp_path):
    settings = LITTLE | dict(eval__documents=1)
    other, output = comparison(config(corpus, schemes="rope", **settings), tmp_path)
    assert run_points(other) == []
    assert "of other settings, which new ones replace" in output.getvalue()
    assert first.finished(first.points[0]) is None


def test_a_run_says_that_other_code_began_it(first, corpus, tmp_path):
    folder = first.folder(first.points[0])
    (folder / "evaluation.json").unlink()
    run = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(run | {"source": "other"}))
    second, output = comparison(config(corpus, schemes="rope", **LITTLE), tmp_path)
    assert run_points(second) == []
    assert "was begun by other source code" in output.getvalue()


def test_another_config_in_the_same_place_is_refused(workdir, corpus):
    """The report and the runs stay as they are, and a later command does not show the reason."""
    before = (workdir / "results.csv.gz").read_bytes()
    other, _ = comparison(config(corpus, train__learning_rate=0.1), workdir)
    failures = run_points(other)
    assert len(failures) == 2
    assert "train.learning_rate was 0.003 and is now 0.1" in failures[0]["reason"]
    assert "--workdir" in failures[0]["reason"]
    common.refuses("--status", lambda: other.write_report("the command"))
    assert (workdir / "results.csv.gz").read_bytes() == before
    again, _ = comparison(config(corpus, eval__documents=1), workdir)
    assert [again.failure(point) for point in again.points] == [None, None]


def test_results_of_other_data_are_shown_and_not_gone_on_with(workdir, corpus):
    """Another Python has other sources under the same name."""
    for path in workdir.rglob("run.json"):
        of_other_data(path.parent, "another")
    one, _ = comparison(config(corpus), workdir)
    assert len(one.evaluations()) == 2
    assert "another" in one.write_report("the command").read_text()
    common.refuses("--report", lambda: run_points(one))


def test_one_scheme_failing_leaves_the_others(workdir, corpus, monkeypatch):
    def failing(*_, **__):
        raise FloatingPointError("loss nan at step 3")

    monkeypatch.setattr(study, "train", failing)
    shutil.rmtree(workdir / "runs/rope")
    one, output = comparison(config(corpus), workdir)
    failures = run_points(one)
    assert [f["scheme"] for f in failures] == ["rope"]
    assert "loss nan at step 3" in output.getvalue()
    page = one.write_report("command").read_text()
    assert "alibi" in page and "loss nan at step 3" in page
    failure = workdir / "runs/rope/seed0/failure.json"
    assert "Traceback" in failure.read_text()
    mended = untrained(comparison(config(corpus), workdir)[0])
    assert run_points(mended) == [] and not failure.exists()


def test_a_failure_is_forgotten_when_the_point_is_tried_again(corpus, tmp_path, monkeypatch):
    """It is preempted then: what it failed of the first time, a full disk, is no longer so."""

    def failing(*_, **__):
        raise OSError("no space left")

    def preempted(*_, **__):
        raise preemption.PreemptedError("asked to stop")

    one, output = comparison(config(corpus, schemes="nope"), tmp_path)
    monkeypatch.setattr(study, "train", failing)
    assert len(run_points(one)) == 1
    monkeypatch.setattr(study, "train", preempted)
    with pytest.raises(preemption.PreemptedError):
        run_points(one)
    output.truncate(0)
    print_status(one, one.console)
    assert "failed" not in output.getvalue()


def test_a_second_program_on_the_same_run_is_refused_by_its_path(workdir, corpus):
    folder = workdir / "runs/rope/seed0"
    (folder / "evaluation.json").unlink()
    with claimed(folder):
        failures = run_points(comparison(config(corpus), workdir)[0])
    assert [f["scheme"] for f in failures] == ["rope"]
    assert "rope/seed0 is in use by another program" in failures[0]["reason"]
    assert not (folder / "failure.json").exists(), "it has not failed"
    again = untrained(comparison(config(corpus), workdir)[0])
    assert run_points(again) == [], "it was given back"


# Status


def test_status_says_what_has_become_of_every_point(workdir, corpus):
    one, output = comparison(config(corpus, schemes="rope,yarn,alibi,nope,t5", seeds=2), workdir)
    folder = {point.name: one.folder(point) for point in one.points}
    line = json.dumps({"step": 2, "seconds": 30.0, "tokens_per_second": 1234.5})
    for name in ("nope/seed0", "t5/seed0"):
        folder[name].mkdir(parents=True)
        damaged = line.replace("2", '"x"', 1)
        (folder[name] / "metrics.jsonl").write_text(f"{line}\n{damaged}\n{line[:5]}")
    failure = {"scheme": "t5", "seed": 1, "reason": "loss nan at step 3"}
    folder["t5/seed1"].mkdir()
    (folder["t5/seed1"] / "failure.json").write_text(json.dumps(failure))
    (point,) = (point for point in one.points if point.name == "alibi/seed1")
    open_run(folder["alibi/seed1"], one.describe(point))  # it has not come to its first line
    with claimed(folder["nope/seed0"]):
        print_status(one, one.console)
    text = output.getvalue()
    lines = {words[0]: words[1:] for row in text.splitlines() if (words := row.split())}
    assert lines["rope/seed0"] == ["done", "6/6"]
    assert lines["rope/seed1"][:2] == ["missing", "0/6"]
    assert lines["nope/seed0"][:3] == ["running", "2/6", "1234"]
    assert "trained in 0:01:00" in text
    assert lines["t5/seed0"] == ["stopped", "2/6"] and lines["alibi/seed1"] == ["stopped", "0/6"]
    assert lines["t5/seed1"][0] == "failed" and "loss nan at step 3" in text
    assert "2 done, 1 running, 1 failed, 2 stopped, 2 missing" in text


def test_status_on_a_narrow_terminal_has_all_letters_of_a_path(corpus, tmp_path):
    one, output = comparison(config(corpus, schemes="nope"), tmp_path)
    folder, path = one.folder(one.points[0]), "/a" * 60
    folder.mkdir(parents=True)
    (folder / "failure.json").write_text(json.dumps({"reason": path}))
    one.console.width = 80
    print_status(one, one.console)
    assert output.getvalue().count("/a") == 60
