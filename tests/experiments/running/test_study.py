"""Tests how the points of a study are run: once each, and each by itself where one fails."""

import json
import shutil

import common
from tiny_runs import comparison, config, of_other_data, untrained

from experiments.results.locks import claimed
from experiments.results.record import open_run
from experiments.running import study
from experiments.running.finished import missing_in
from experiments.running.pool import run_points
from experiments.running.status import print_status


def test_an_extension_that_is_added_later_is_evaluated_on_the_model_that_is_there(workdir, corpus):
    later, peer = (comparison(config(corpus, schemes="rope,yarn,pi"), workdir)[0] for _ in "ab")
    (point,) = later.points
    before, folder = later.finished(point)["records"], later.folder(point)
    assert missing_in(later.finished(point), point) == ("pi",)
    assert later.holes() == peer.holes() == ["rope/seed0 lacks pi"]
    # Without its checkpoint, as from an archive, the point stays as it is.
    aside = (folder / "checkpoints").rename(workdir / "aside")
    assert later.is_done(point)
    aside.rename(folder / "checkpoints")
    trained = (folder / "metrics.jsonl").read_text()
    assert run_points(later) == [] and later.holes() == peer.holes() == []
    records = later.finished(point)["records"]
    assert [r for r in records if r["scheme"] != "pi"] == before
    assert {r["scheme"] for r in records} == {"rope", "yarn", "pi"}
    assert (folder / "metrics.jsonl").read_text() == trained


def test_another_evaluation_uses_the_trained_checkpoint(workdir, corpus):
    """An archive has no checkpoints, and what it has must not be trained anew, or lost."""
    changes = dict(schemes="alibi", eval__documents=1, eval__multiples=(1,), eval__strides=())
    other, output = comparison(config(corpus, **changes), workdir)
    folder = other.folder(other.points[0])
    before = {name: (folder / name).read_text() for name in ("metrics.jsonl", "evaluation.json")}
    aside = (folder / "checkpoints").rename(workdir / "aside")
    (failure,) = run_points(other)
    assert "no checkpoint to evaluate again" in failure["reason"]
    assert before == {name: (folder / name).read_text() for name in before}
    aside.rename(folder / "checkpoints")
    assert run_points(other) == [] and len(other.evaluations()) == 1
    assert (folder / "metrics.jsonl").read_text() == before["metrics.jsonl"], "trained again"
    assert "of other settings, which new ones replace" in output.getvalue()


def test_another_config_in_the_same_place_is_refused(workdir, corpus):
    """The report and the runs stay as they are, and a later command does not show the reason."""
    before = (workdir / "results.csv.gz").read_bytes()
    other, _ = comparison(config(corpus, train__learning_rate=0.1), workdir)
    failures = run_points(other)
    assert len(failures) == 2
    assert "train.learning_rate" in failures[0]["reason"]
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
        raise FloatingPointError("loss <nan> at step 3")

    monkeypatch.setattr(study, "train", failing)
    shutil.rmtree(workdir / "runs/rope")
    one, output = comparison(config(corpus), workdir)
    failures = run_points(one)
    assert [f["scheme"] for f in failures] == ["rope"]
    assert "loss <nan> at step 3" in output.getvalue()
    page = one.write_report("command").read_text()
    assert "alibi" in page and "loss &lt;nan&gt; at step 3" in page
    failure = workdir / "runs/rope/seed0/failure.json"
    assert "Traceback" in failure.read_text()
    mended = untrained(comparison(config(corpus), workdir)[0])
    assert run_points(mended) == [] and not failure.exists()


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
