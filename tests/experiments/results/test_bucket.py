"""Tests a workdir in a bucket: a run that is stopped and damaged there, and archives."""

import fake_bucket
import pytest
from tiny_runs import comparison, config
from toy import preempted

from experiments.results import archive
from experiments.results.bucket import folder_at
from experiments.results.environment import environment
from experiments.results.record import read_lines, write_json
from experiments.results.seal import write_evaluation
from experiments.running.pool import run_points


@pytest.fixture(scope="module")
def objects():
    with pytest.MonkeyPatch.context() as patch, fake_bucket.in_memory(patch) as made:
        yield made


def metrics(one):
    lines = read_lines(one.folder(one.points[0]) / "metrics.jsonl")
    return [(line["step"], line["loss"]) for line in lines]


@pytest.mark.slow
def test_a_run_goes_on_in_a_bucket_as_in_a_folder(objects, corpus, tmp_path):
    """It is preempted, the checkpoint of that moment is damaged, and the one before it is taken."""
    changes = dict(schemes="nope", train__checkpoint_every=2, train__log_every=1)
    here, _ = comparison(config(corpus, **changes), tmp_path)
    assert run_points(here) == []
    there, output = comparison(config(corpus, **changes), folder_at("gs://mine/runs/tiny/"))
    with preempted(5):
        run_points(there)
    folder = "/mine/runs/tiny/runs/nope/seed0"
    arrays = [name for name in objects.store if name.startswith(f"{folder}/checkpoints/5/state/")]
    largest = max(arrays, key=lambda name: objects.store[name].size)
    content = bytearray(objects.store[largest].getvalue())
    content[len(content) // 2] ^= 1
    objects.current().pipe_file(largest, bytes(content))
    assert run_points(there) == []
    assert not [name for name in objects.store if "/checkpoints/5/" in name]
    assert metrics(there) == metrics(here)
    evaluations = [one.evaluations()[0]["records"] for one in (here, there)]
    assert evaluations[0] == evaluations[1]
    assert run_points(there) == [] and "were done before" in output.getvalue()
    there.write_report("the command")
    assert {f"{folder}/evaluation.json", "/mine/runs/tiny/report.html"} < objects.store.keys()


def test_results_travel_to_a_bucket_and_back(objects, tmp_path, monkeypatch):
    """And not into a folder of this machine that is called "gs:"."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "here/runs/nope/seed0"
    folder.mkdir(parents=True)
    write_json(folder / "run.json", {"config": {}} | environment())
    (folder / "metrics.jsonl").write_text("{}\n")
    write_evaluation(folder, {"training": {}})
    there = "--workdir=gs://mine/restored"
    for arguments in (
        ["--workdir=here", "--out=results"],
        [there, "--restore=results"],
        [there, "--out=again"],
    ):
        monkeypatch.setattr("sys.argv", ["archive", *arguments])
        assert archive.main() == 0
    assert (tmp_path / "results").read_bytes() == (tmp_path / "again").read_bytes()
    assert "/mine/restored/runs/nope/seed0/run.json" in objects.store
    assert not (tmp_path / "gs:").exists()
