"""Tests that processes of one job are one run, whatever happens to one of them."""

import json
import random
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import yaml
from tiny_runs import (
    ENDLESS,
    by_hand,
    comparison,
    config,
    ended,
    finish,
    free_port,
    start,
    wait_for,
)

from experiments.results.record import read_lines
from experiments.running import agreement, submit
from experiments.running.pool import run_points

# The steps and the evaluation of runs that are compared. Each of two processes has half of the rows
# and half of the parameters.
SHORT = ("--config.train.log_every=1", "--config.train.checkpoint_every=4")
SHORT += ("--config.mesh.fsdp=2",)
SHORT += ("--config.eval.multiples=(1,)", "--config.eval.strides=()")


def by_slurm(count):
    """Returns the environment of each process of a job, as ``srun`` sets it, all on one node."""
    last = range(2**16 - 2**12, 2**16)  # JAX derives the port from the number of the job
    job = free_port(random.sample(last, 20)) - last.start
    shared = {"JOB_ID": job, "NTASKS": count, "STEP_NODELIST": "localhost", "STEP_NUM_NODES": 1}
    tasks = [shared | {"PROCID": number, "LOCALID": number} for number in range(count)]
    return [([], {f"SLURM_{name}": str(n) for name, n in one.items()}) for one in tasks]


def by_kubernetes(count):
    """Returns the flags and the environment of each pod of a JobSet, with all pods on this host."""
    settings = ["image=i", "accelerator=a", f"hosts={count}", "claim=disk"]
    job = submit.Job(("python", "launch.py"), {0: 1}, Path("/results"))
    manifest = yaml.safe_load(submit.make_backend("jobset", settings).file(job))
    (stage,) = manifest["spec"]["replicatedJobs"]
    (container,) = stage["template"]["spec"]["template"]["spec"]["containers"]
    _, _, *flags = container["command"]
    (first,) = (flag for flag in flags if flag.startswith("--coordinator="))
    flags[flags.index(first)] = f"--coordinator=127.0.0.1:{free_port()}"
    pods = [{"POINT": "0", "HOST": str(n), "JOB_COMPLETION_INDEX": str(n)} for n in range(count)]
    return [
        ([flag.replace("$(HOST)", pod["HOST"]).replace("$(POINT)", "0") for flag in flags], pod)
        for pod in pods
    ]


def numbers(workdir):
    """Returns the losses of training and of the evaluation."""
    folder = workdir / "runs/rope/seed0"
    records = json.loads((folder / "evaluation.json").read_text())["records"]
    trained = {line["step"]: line["loss"] for line in read_lines(folder / "metrics.jsonl")}
    assert list(trained) == [1, 2, 3, 4, 5, 6]
    return [*trained.values(), *(record["loss"] for record in records)]


@pytest.fixture(scope="module")
def in_two(corpus, tmp_path_factory):
    """Returns the workdir of a run of two processes that nothing disturbs, and what they print."""
    workdir = tmp_path_factory.mktemp("in_two")
    return workdir, finish(start(2, workdir, corpus, *SHORT))


@pytest.fixture(scope="module")
def in_one(corpus, tmp_path_factory):
    """Returns the numbers of a run of one process, and its config."""
    less = dict(schemes="rope", eval__multiples=(1,), eval__strides=(), train__log_every=1)
    often = config(corpus, **less, train__checkpoint_every=1)
    workdir = tmp_path_factory.mktemp("in_one")
    assert run_points(comparison(often, workdir)[0]) == []
    return numbers(workdir), often


def test_two_processes_are_one_run(in_one, in_two):
    """Each holds half of the rows; of several processes one speaks and writes for all."""
    workdir, (first, second) = in_two
    assert "report.html" in first and "rope" not in second
    np.testing.assert_allclose(numbers(workdir), in_one[0], rtol=1e-6)


@pytest.mark.slow
def test_a_run_goes_on_in_another_number_of_processes_with_the_numbers_of_one(
    corpus, in_one, in_two, tmp_path
):
    """It goes from two to one to four, which hold halves of the rows and halves of each layer."""
    expected, often = in_one
    workdir, folder = tmp_path / "many", tmp_path / "many/runs/rope/seed0"

    def undo(*steps):
        for step in steps:
            shutil.rmtree(folder / f"checkpoints/{step}")
        (folder / "evaluation.json").unlink()

    shutil.copytree(in_two[0], workdir)
    undo(6)
    assert run_points(comparison(often, workdir)[0]) == []
    np.testing.assert_allclose(numbers(workdir), expected, rtol=1e-6)
    undo(6)
    finish(start(4, workdir, corpus, *SHORT, "--config.mesh.model=2"))
    np.testing.assert_allclose(numbers(workdir), expected, rtol=1e-6)


@pytest.mark.slow
def test_damage_that_one_process_meets_sends_all_to_the_checkpoint_before(corpus, in_two, tmp_path):
    """The other processes can read their own parts, and must not go on with them alone."""
    workdir, folder = tmp_path / "damaged", tmp_path / "damaged/runs/rope/seed0"
    shutil.copytree(in_two[0], workdir)
    (folder / "evaluation.json").unlink()
    parts = list((folder / "checkpoints/6/state/ocdbt.process_1/d").iterdir())
    assert parts
    for path in parts:
        path.unlink()
    processes = start(2, workdir, corpus, *SHORT)
    for _, errors in ended(processes):
        assert "checkpoints/6 cannot be read" in errors
    assert [process.returncode for process in processes] == [0, 0]
    np.testing.assert_allclose(numbers(workdir), numbers(in_two[0]), rtol=1e-6)


@pytest.mark.slow
def test_sigterm_to_one_process_stops_all_and_the_run_goes_on_as_if_undisturbed(
    corpus, in_two, tmp_path
):
    """The first job is joined by SLURM's variables, the second by what a JobSet tells its pods."""
    folder = tmp_path / "runs/rope/seed0"
    processes = start(2, tmp_path, corpus, *SHORT, how=by_slurm)
    wait_for(folder / "run.json")  # they are one job, and compile the first step
    processes[1].send_signal(signal.SIGTERM)
    printed = ended(processes)
    assert [process.returncode for process in processes] == [75, 75], printed
    assert all("saved, run again" in errors for _, errors in printed)
    names = (path.name for path in (folder / "checkpoints").iterdir())
    saved = max(int(name) for name in names if name.isdigit())
    assert saved < 6, "asked too late to stop training"
    finish(start(2, tmp_path, corpus, *SHORT, how=by_kubernetes))
    assert numbers(tmp_path) == numbers(in_two[0])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("lost", "how"),
    [(0, signal.SIGKILL), (1, signal.SIGSTOP)],
    ids=["the first", "another that hangs"],
)
def test_a_process_that_is_lost_ends_the_job_and_asks_for_another(corpus, tmp_path, lost, how):
    """A collective operation notices, or JAX aborts after the timeout; a queue restarts both."""
    processes = start(2, tmp_path, corpus, *ENDLESS["train"], "--peer_timeout=10")
    wait_for(tmp_path / "runs/rope/seed0/metrics.jsonl")
    processes[lost].send_signal(how)
    other = processes[1 - lost]
    try:
        _, errors = other.communicate(timeout=300)
    finally:
        processes[lost].kill()
    assert other.returncode in (75, -signal.SIGABRT), errors


@pytest.mark.slow
def test_a_process_that_is_missing_ends_the_others(corpus, tmp_path):
    (process,) = start(1, tmp_path, corpus, "--start_timeout=5", how=lambda _: by_hand(2)[:1])
    _, errors = process.communicate(timeout=120)
    assert process.returncode in (75, -signal.SIGABRT), errors
    assert not [*tmp_path.iterdir()]


@pytest.mark.slow
def test_processes_that_differ_end_before_they_train(corpus, tmp_path):
    def how(count):
        first, (flags, _) = by_hand(count)
        other_rate = [*flags, "--config.train.learning_rate=0.001"]
        return [first, (other_rate, {"JAX_DEFAULT_PRNG_IMPL": "rbg"})]

    processes = start(2, tmp_path, corpus, how=how)
    for process, (_, errors) in zip(processes, ended(processes, timeout=120), strict=True):
        assert process.returncode == 2, errors
        assert "differ in --config and settings of JAX" in errors, errors
    assert not [*tmp_path.iterdir()], "nothing was written"


@pytest.mark.slow
def test_hosts_that_have_other_texts_are_told(corpus, tmp_path):
    for number, folder in enumerate(("first", "second")):
        shutil.copytree(Path(corpus.removeprefix("files:")).parent, tmp_path / folder)
        (tmp_path / folder / "more.txt").write_text(f"known to process {number} alone")

    def how(count):
        homes = ({"HOME": str(tmp_path / folder)} for folder in ("first", "second"))
        return [(flags, home) for (flags, _), home in zip(by_hand(count), homes, strict=True)]

    processes = start(2, tmp_path / "runs", "files:~/*.txt", how=how)
    for process, (_, errors) in zip(processes, ended(processes, timeout=120), strict=True):
        assert process.returncode == 2
        assert "corpus 'files:~/*.txt' is not the same in all processes of the job" in errors


FAILS_ALONE = """
import sys
sys.path.insert(0, "")
if "--process_id=1" in sys.argv:
    from experiments.training import text
    train_batch = text.train_batch

    def failing(index, batch_size, seed, step, *rest):
        if step == 3:
            raise TypeError("a token of this process alone")
        return train_batch(index, batch_size, seed, step, *rest)

    text.train_batch = failing
exec(compile(open("launch.py").read(), "launch.py", "exec"))
"""


@pytest.mark.slow
def test_a_process_that_fails_alone_ends_the_job(corpus, tmp_path):
    """It must not go on to the next point, for the others wait for it in this one."""
    program = tmp_path / "program.py"
    program.write_text(FAILS_ALONE)
    both = "--config.schemes=rope,nope"
    first, second = start(2, tmp_path / "runs", corpus, both, path=str(program))
    errors = [printed[1] for printed in ended((first, second), timeout=240)]
    assert second.returncode == 2, errors
    assert "error: a token of this process alone" in errors[1]
    assert first.returncode in (75, -signal.SIGABRT), errors


def test_a_scheme_in_a_file_of_another_content_is_told(tmp_path, monkeypatch):
    """Otherwise a mixture of both would be trained."""
    monkeypatch.chdir(tmp_path)
    digests = []
    for number in ("1.0", "2.0"):
        Path("mine.py").write_text(f"SLOPE = {number}")
        facts = agreement.facts_of(config("files", schemes="rope,mine"), {})
        digests.append(facts["own scheme files"])
    assert digests[0].keys() == {"mine"} and digests[0] != digests[1]
