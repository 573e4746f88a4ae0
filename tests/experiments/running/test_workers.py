"""Tests points that are divided among programs: each is run once, whatever happens to a program."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time

import common
import pytest
from tiny_runs import TINY, comparison, config, start, untrained

from experiments import job_processes
from experiments.results.locks import claimed
from experiments.results.record import open_run
from experiments.running import schedule, workers
from experiments.running.schedule import Schedule, run_points

TWO_CORES = pytest.mark.skipif(
    len(workers._cores()) < 2 or not sys.platform.startswith("linux"),
    reason="two workers need two cores, and the tests /proc of Linux",
)


@pytest.fixture
def two_cores(monkeypatch):
    """Makes the core of a machine that has one count twice, and the command one with workers."""
    monkeypatch.setenv(workers._COMMAND, "to be forgotten")
    core = workers._cores()[0]
    monkeypatch.setattr(workers, "_cores", lambda: [core, core])


@pytest.mark.parametrize("flag", ["--status", "-dry_run", "--backend slurm", "--task_id=3"])
def test_where_nothing_or_one_point_is_trained_nothing_is_divided(flag, monkeypatch):
    monkeypatch.setattr(workers.subprocess, "Popen", lambda *a, **k: pytest.fail("started"))
    workers.run(["launch.py", "--workers=2", *flag.split()])


@pytest.mark.parametrize("flag", ["", "--task_id=-1", "--task_id -1"])
@pytest.mark.usefixtures("two_cores")
def test_a_job_of_an_array_has_one_point_on_all_its_cores_unless_it_asks_for_all(flag, monkeypatch):
    started = []

    def run_all(starts):
        started.extend(starts)
        return [], False

    monkeypatch.setattr(workers, "run_all", run_all)
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    workers.run(["launch.py", "--workers=2", *flag.split()])
    assert len(started) == (2 if flag else 0)


@pytest.mark.usefixtures("two_cores")
def test_sigterm_while_workers_are_started_ends_all_of_them(monkeypatch):
    """None may go on alone, for nobody would wait until it has saved."""
    started, popen = [], subprocess.Popen

    def start_and_stop(command, **how):
        started.append(popen(["sleep", "60"], **how))
        os.kill(os.getpid(), signal.SIGTERM)
        return started[-1]

    monkeypatch.setattr(workers.subprocess, "Popen", start_and_stop)
    before = signal.getsignal(signal.SIGTERM)
    job_processes.ask_again_if_stopped()
    asking_again = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit) as stop:
            workers.run(["launch.py", "--workers=2"])
        assert stop.value.code == 75
        assert [worker.poll() for worker in started] == [-signal.SIGTERM] * 2
        assert signal.getsignal(signal.SIGTERM) is asking_again, "JAX does not listen yet"
    finally:
        signal.signal(signal.SIGTERM, before)
        for worker in started:
            worker.kill()


BOTH = dict(schemes="rope,alibi")


def test_points_that_another_program_holds_are_left_to_it(corpus, tmp_path):
    one, output = comparison(config(corpus, **BOTH), tmp_path)
    untrained(one)
    with claimed(tmp_path / "shared/rope/seed0"):
        assert run_points(one.parts, share=True) == []
    assert [one.finished(point) is not None for point in one.points] == [False, True]
    assert "rope/seed0" not in output.getvalue()
    assert run_points(one.parts, share=True) == [] and all(map(one.finished, one.points))
    assert "1 of 2 were done before" in output.getvalue()


@pytest.mark.parametrize(
    ("cores", "last"),
    [(1, [["alibi/seed0"], ["alibi/seed1"]]), (2, [["alibi/seed0", "alibi/seed1"]])],
)
def test_on_one_core_the_seeds_of_the_last_scheme_are_shared_one_by_one(
    cores, last, corpus, tmp_path, monkeypatch
):
    """Elsewhere they are trained as one program, which is faster there."""
    common.set_cores(monkeypatch, cores)
    one, _ = comparison(config(corpus, **BOTH, seeds=2, together=2), tmp_path)
    begun: list[list[str]] = []

    def begin(self, group):
        begun.append([point.name for point in group])
        return {}

    monkeypatch.setattr(Schedule, "_train_together", begin)
    monkeypatch.setattr(Schedule, "_try_point", lambda *_: None)
    first, whole = ["rope/seed0", "rope/seed1"], ["alibi/seed0", "alibi/seed1"]
    assert run_points(one.parts, share=True) == [] and begun == [first, *last]
    begun.clear()
    assert run_points(one.parts) == [] and begun == [first, whole]


def test_a_point_that_a_program_without_share_holds_is_left_to_it(corpus, tmp_path):
    one = untrained(comparison(config(corpus, **BOTH), tmp_path)[0])
    folder = one.folder(one.points[0])
    with claimed(folder):
        assert run_points(one.parts, share=True) == []
        assert [failure["scheme"] for failure in run_points(one.parts)] == ["rope"]
        assert not (folder / "failure.json").exists(), "it has not failed"
    assert [one.finished(point) is not None for point in one.points] == [False, True]


@pytest.mark.parametrize("share", [True, False])
def test_a_point_waits_for_the_one_that_it_starts_from(share, corpus, tmp_path, monkeypatch):
    """The other program is a worker, or another job of an array."""
    one, output = comparison(config(corpus, **BOTH), tmp_path)
    other, _ = comparison(config(corpus, **BOTH), tmp_path)
    rope, alibi = untrained(one).points
    untrained(other)
    monkeypatch.setattr(one, "start_of", {rope: None, alibi: rope}.get)
    with contextlib.ExitStack() as stack:
        stack.enter_context(claimed(tmp_path / ("shared" if share else "runs") / "rope/seed0"))

        def sleep(_):
            assert not other.finished(alibi)
            stack.close()
            assert run_points(other.parts, task_id=0) == []

        monkeypatch.setattr(schedule.time, "sleep", sleep)
        assert run_points(one.parts, None if share else 1, share) == []
    assert one.finished(alibi) and "rope/seed0" not in output.getvalue()


@pytest.mark.parametrize("is_job", [False, True])
@pytest.mark.parametrize("is_refused", [False, True])
def test_points_that_another_sweep_needs_are_waited_for_only_while_a_program_has_them(
    is_refused, is_job, corpus, tmp_path, monkeypatch
):
    """One that was killed has left them, and one of another config cannot run them."""
    names = "first", "second"
    first, second = (comparison(config(corpus, **BOTH), tmp_path / name)[0] for name in names)
    rope = untrained(first).points[0]
    untrained(second).needs = lambda _: None if first.finished(rope) else ("first", [rope])
    if is_refused:
        open_run(first.folder(rope), {"seed": "another"})
    with contextlib.ExitStack() as killed:
        killed.enter_context(claimed(tmp_path / "first/shared/rope/seed0"))
        monkeypatch.setattr(schedule.time, "sleep", lambda _: killed.close())
        parts, job = {"first": first, "second": second}, len(first.points)
        failures = run_points(parts, job if is_job else None, share=not is_job)
    assert [failure["scheme"] for failure in failures] == ["first: rope"] * is_refused
    finished = [[bool(one.finished(p)) for p in one.points] for one in (first, second)]
    assert finished == [[not is_refused, not is_job], [True, not is_job]]


def test_a_job_leaves_a_point_to_the_job_that_needs_it_first(corpus, tmp_path):
    names = "first", "second"
    first, second = (comparison(config(corpus, **BOTH), tmp_path / name)[0] for name in names)
    rope = untrained(first).points[0]
    second.needs = lambda _: ("first", [rope])
    with claimed(tmp_path / "first/shared/rope/seed0"), claimed(first.folder(rope)):
        assert run_points({"first": first, "second": second}, task_id=0) == []


def test_a_point_that_diverged_for_a_worker_is_not_trained_again_by_its_command(
    corpus, tmp_path, monkeypatch
):
    """One that failed otherwise is: there may be more memory once the workers have ended."""
    errors = {"nope": FloatingPointError("loss nan"), "alibi": MemoryError("none is left")}
    trained = []

    def failing(point):
        trained.append(point.scheme)
        raise errors[point.scheme]

    one, output = comparison(config(corpus, schemes="nope,alibi"), tmp_path)
    one.train = failing
    monkeypatch.setenv(workers._COMMAND, "one")
    failures = run_points(one.parts, share=True)
    assert [failure["scheme"] for failure in failures] == ["nope", "alibi"]
    assert run_points(one.parts) == failures and trained == ["nope", "alibi", "alibi"]
    assert output.getvalue().count("loss nan") == 1
    monkeypatch.setenv(workers._COMMAND, "another")
    assert run_points(one.parts) == failures and trained[3:] == ["nope", "alibi"]


@pytest.mark.slow
@TWO_CORES
def test_a_scheme_that_diverges_is_reported_once_by_a_command_with_workers(corpus, tmp_path):
    config = TINY, "--config.schemes=nope", "--config.train.learning_rate=1e30", "--workers=2"
    (process,) = start(1, tmp_path, corpus, config=config)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 1, errors
    assert output.count("FAILED FloatingPointError") == 1, "it was trained again"
    assert output.count("failed: nope seed 0: FloatingPointError") == 1


def workers_of(process) -> list[int]:
    """Returns the workers of a program, as soon as both are there."""
    children = f"/proc/{process.pid}/task/{process.pid}/children"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with open(children) as file:
            numbers = [int(number) for number in file.read().split()]
        if len(numbers) == 2:
            return numbers
        time.sleep(0.05)
    raise TimeoutError("there are no workers")


@pytest.mark.slow
@TWO_CORES
def test_two_workers_divide_the_points_and_one_that_is_killed_costs_none(corpus, tmp_path):
    config = TINY, "--config.schemes=nope,rope,alibi", "--workers=2"
    (process,) = start(1, tmp_path, corpus, config=config)
    victim, _ = workers_of(process)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("runs/*/seed0/metrics.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(victim, signal.SIGKILL)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert len(list(tmp_path.glob("runs/*/seed0/evaluation.json"))) == 3
    assert (tmp_path / "report.html").exists() and "were done before" in output
    # The one that was killed has begun one point, which is begun a second time.
    begun = re.findall(r"(\w+)/seed0$", output, re.MULTILINE)
    assert sorted(set(begun)) == ["alibi", "nope", "rope"] and len(begun) <= 4


@pytest.mark.slow
@TWO_CORES
def test_workers_end_with_the_program_that_started_them(corpus, tmp_path):
    (process,) = start(1, tmp_path, corpus, "--config.train.steps=100000", "--workers=2")
    numbers = workers_of(process)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    assert process.returncode == 75
    deadline = time.monotonic() + 30
    while any(os.path.exists(f"/proc/{number}") for number in numbers):
        assert time.monotonic() < deadline, "a worker goes on alone"
        time.sleep(0.05)
