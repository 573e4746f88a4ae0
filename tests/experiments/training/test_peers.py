"""Tests processes of one job: what watches over each, and that together they are one run."""

import contextlib
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.errors import JaxRuntimeError
from test_compare import ENDLESS, FLAGS, ROOT, comparison, config

from experiments import job_processes, preemption
from experiments.running import submit

ALONE = ("SLURM_STEP_NODELIST", "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS", "TPU_WORKER_HOSTNAMES")


@pytest.mark.parametrize(
    ("program", "status"),
    [
        ("raise SystemExit(0)", 0),
        ("raise SystemExit(2)", 2),
        ("import os; os.abort()", 75),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", 137),
        ("import os; assert int(os.environ['POSENC_JAX_WATCHED']) == os.getppid()", 0),
    ],
)
def test_the_status_is_that_of_the_program_but_where_jax_has_ended_it(program, status, capfd):
    assert job_processes.watch([sys.executable, "-c", program]) == status
    assert ("run again" in capfd.readouterr().err) == (status == 75)


@pytest.mark.parametrize(
    ("variables", "flag", "expected"),
    [
        ({}, "", False),
        ({}, "--num_processes=1", False),
        ({}, "--num_processes=2", True),
        ({}, "-num_processes 12", True),
        ({"SLURM_NTASKS": "4"}, "", False),  # sbatch without srun
        ({"SLURM_NTASKS": "4", "SLURM_STEP_NODELIST": "n[0-3]"}, "", True),
        ({"SLURM_NTASKS": "1", "SLURM_STEP_NODELIST": "n0"}, "", False),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, "", False),
        ({"TPU_WORKER_HOSTNAMES": "host-0,host-1"}, "", True),
        ({"POSENC_JAX_WATCHED": "1"}, "--num_processes=2", False),
    ],
)
def test_who_is_watched(monkeypatch, variables, flag, expected):
    for name in ALONE:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert job_processes.are_expected(["launch.py", *flag.split()]) == expected


def test_which_errors_are_a_lost_peer():
    lost = "Gloo all-reduce failed: Connection reset by peer"
    assert job_processes.is_loss(JaxRuntimeError(f"UNKNOWN: {lost}"))
    assert not job_processes.is_loss(JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory"))
    assert not job_processes.is_loss(RuntimeError(lost))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("host:1", None, None), "needs --num_processes and --process_id too"),
        ((None, 2, 0), "needs --coordinator too"),
        (("host", 2, 0), "--coordinator=host must be HOST:PORT"),
        (("host:1", 2, 2), r"--process_id=2 must be in 0\.\.1"),
    ],
)
def test_a_job_by_hand_that_is_not_whole_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        preemption.listen(*arguments)


@pytest.mark.parametrize(
    ("variables", "platforms", "joins"),
    [
        ({}, "cpu", False),
        ({}, "tpu,cpu", True),  # a Cloud TPU VM, whose metadata JAX asks
        ({"TPU_SKIP_MDS_QUERY": "1"}, "tpu,cpu", False),
        ({"TPU_SKIP_MDS_QUERY": "1", "TPU_WORKER_HOSTNAMES": "a,b"}, "tpu,cpu", True),  # GKE
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, "cpu", False),
        ({"TPU_NAME": "mine"}, "cpu", False),
        ({"SLURM_STEP_NODELIST": "n0"}, "cpu", True),
    ],
)
def test_the_hosts_of_a_slice_are_joined_where_jax_finds_tpus(
    variables, platforms, joins, monkeypatch
):
    for name in (*ALONE, "JAX_COORDINATOR_ADDRESS", "TPU_SKIP_MDS_QUERY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    told = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *_, **given: told.append(given))
    before = jax.config.jax_platforms
    jax.config.update("jax_platforms", platforms)
    try:
        preemption.listen()
    finally:
        jax.config.update("jax_platforms", before)
    assert ["num_processes" not in each for each in told] == [joins]


@pytest.mark.parametrize(("tasks", "expected"), [(1, "all"), (2, "0")])
def test_one_process_a_node_takes_all_gpus_of_the_node(tasks, expected):
    """As submitit starts them: JAX alone would take the GPU of the process's number on its node."""
    variables = {"JOB_ID": 7, "STEP_NODELIST": "n0", "STEP_NUM_NODES": 1, "NTASKS": tasks}
    variables |= {"PROCID": 0, "LOCALID": 0}
    program = """
import jax
from experiments import preemption
jax.distributed.initialize = lambda **_: jax.config.update("jax_cuda_visible_devices", "0")
preemption.listen()
print(jax.config.read("jax_cuda_visible_devices"))
"""
    command = [sys.executable, "-c", program]
    environment = os.environ | {f"SLURM_{name}": str(value) for name, value in variables.items()}
    found = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert found.stdout == f"{expected}\n", found.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ("host:1", 3, 1),
            "process 1 of 3 still waits at host:1 .* its own --process_id from 0 on",
        ),
        ((), "JAX_COORDINATOR_ADDRESS in the environment says .* the command runs on every host"),
    ],
)
def test_a_process_that_waits_long_says_what_for(arguments, words, monkeypatch, capsys):
    """The others may have another command, and JAX says nothing for five minutes."""
    monkeypatch.setattr(preemption, "_LATE", 0.01)
    monkeypatch.setattr(preemption.jax.distributed, "initialize", lambda *a, **k: time.sleep(0.2))
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "host:1")
    preemption.listen(*arguments)
    assert re.search(words, capsys.readouterr().err)


def test_a_job_by_hand_takes_nothing_from_the_queue_around_it(monkeypatch):
    """Within a step of SLURM, JAX would leave each process one GPU."""
    told = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *_, **given: told.append(given))
    preemption.listen("host:1", 2, 0)
    assert told[0]["cluster_detection_method"] == "deactivate"


# The steps and the evaluation of runs that are compared.
SHORT = ("--config.train.log_every=1", "--config.train.checkpoint_every=4")
SHORT += ("--config.eval.multiples=(1,)", "--config.eval.strides=()")


def free_port(ports=(0,)):
    """Returns the first of some ports that is free; 0 stands for any."""
    for port in ports:
        with socket.socket() as free, contextlib.suppress(OSError):
            free.bind(("127.0.0.1", port))
            return free.getsockname()[1]


def by_hand(count):
    """Returns the flags of each process of a job that is started by hand."""
    job = [f"--coordinator=127.0.0.1:{free_port()}", f"--num_processes={count}"]
    return [([*job, f"--process_id={number}"], {}) for number in range(count)]


def by_slurm(count):
    """Returns the environment of each process of a job, as ``srun`` sets it, all on one node."""
    last = range(2**16 - 2**12, 2**16)  # JAX derives the port from the number of the job
    job = free_port(random.sample(last, 20)) - last.start
    own = {"JOB_ID": job, "NTASKS": count, "STEP_NODELIST": "localhost", "STEP_NUM_NODES": 1}
    each = [own | {"PROCID": number, "LOCALID": number} for number in range(count)]
    return [([], {f"SLURM_{name}": str(n) for name, n in one.items()}) for one in each]


def by_kubernetes(count):
    """Returns the flags and the environment of each pod of a JobSet, with all pods on this host."""
    settings = ["image=i", "accelerator=a", f"hosts={count}", "claim=disk"]
    job = submit.Job(("python", "launch.py"), 1, Path("/results"))
    (manifest,) = submit.make_backend("gke", settings).manifests(job)
    (host,) = manifest["spec"]["replicatedJobs"]
    (container,) = host["template"]["spec"]["template"]["spec"]["containers"]
    _, _, *flags = container["command"]
    (first,) = (flag for flag in flags if flag.startswith("--coordinator="))
    flags[flags.index(first)] = f"--coordinator=127.0.0.1:{free_port()}"
    pods = [{"HOST": str(n), "JOB_COMPLETION_INDEX": str(n)} for n in range(count)]
    return [([flag.replace("$(HOST)", pod["HOST"]) for flag in flags], pod) for pod in pods]


ROPE = ("--config=configs/extrapolation.py:tiny", "--config.schemes=rope")


def start(count, workdir, corpus, *arguments, how=by_hand, program="launch.py", config=ROPE):
    """Starts an experiment, by default a comparison of ``rope``, in processes of one job."""
    command = [*config, f"--workdir={workdir}", f"--config.corpus={corpus}", *arguments]
    return [
        subprocess.Popen(
            [sys.executable, program, *command, *flags],
            cwd=ROOT,
            env=os.environ | {"XLA_FLAGS": FLAGS} | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for flags, variables in how(count)
    ]


def wait_for(path):
    """Waits until a file has something in it."""
    deadline = time.monotonic() + 300
    while not (path.exists() and path.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.05)


def ended(processes, timeout=300):
    """Returns what each process has printed, its output and its errors, once all have ended.

    All are read at a time, because one whose pipe is full waits, and others may wait for it.
    """
    with ThreadPoolExecutor(len(processes)) as pool:
        return [*pool.map(lambda process: process.communicate(timeout=timeout), processes)]


def finish(processes):
    """Returns what each process has printed, once all have ended well."""
    printed = ended(processes)
    assert {process.returncode for process in processes} == {0}, printed
    return [out for out, _ in printed]


def numbers(workdir):
    """Returns the losses of training and of the evaluation."""
    folder = workdir / "runs/rope/seed0"
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    records = json.loads((folder / "evaluation.json").read_text())["records"]
    trained = {line["step"]: line["loss"] for line in lines}
    assert list(trained) == [1, 2, 3, 4, 5, 6]
    return [*trained.values(), *(record["loss"] for record in records)]


@pytest.fixture(scope="module")
def in_two(corpus, tmp_path_factory):
    """Returns the workdir of a run of two processes that nothing disturbs, and what they print."""
    workdir = tmp_path_factory.mktemp("in_two")
    return workdir, finish(start(2, workdir, corpus, *SHORT))


@pytest.mark.slow
def test_a_run_goes_on_in_another_number_of_processes_with_the_numbers_of_one(
    corpus, in_two, tmp_path
):
    """It goes from two to one to four, which hold halves of the rows and halves of each layer.

    Of several processes one speaks and writes for all.
    """
    less = dict(schemes="rope", eval__multiples=(1,), eval__strides=(), train__log_every=1)
    often = config(corpus, **less, train__checkpoint_every=1)
    assert comparison(often, tmp_path / "one")[0].run() == []
    expected = numbers(tmp_path / "one")
    workdir, folder = tmp_path / "many", tmp_path / "many/runs/rope/seed0"

    def undo(*steps):
        for step in steps:
            shutil.rmtree(folder / f"checkpoints/{step}")
        (folder / "evaluation.json").unlink()

    first, second = in_two[1]
    shutil.copytree(in_two[0], workdir)
    assert "report.html" in first and "rope" not in second
    np.testing.assert_allclose(numbers(workdir), expected, rtol=1e-6)
    undo(6)
    assert comparison(often, workdir)[0].run() == []
    np.testing.assert_allclose(numbers(workdir), expected, rtol=1e-6)
    undo(6)
    finish(start(4, workdir, corpus, *SHORT, "--config.mesh.fsdp=2", "--config.mesh.model=2"))
    np.testing.assert_allclose(numbers(workdir), expected, rtol=1e-6)


@pytest.mark.slow
def test_damage_that_one_process_meets_sends_all_to_the_checkpoint_before(corpus, tmp_path):
    """The other processes can read their own parts, and must not go on with them alone."""
    folder = tmp_path / "runs/rope/seed0"
    shared = [*SHORT, "--config.mesh.fsdp=2"]
    finish(start(2, tmp_path, corpus, *shared))
    expected = numbers(tmp_path)
    (folder / "evaluation.json").unlink()
    parts = list((folder / "checkpoints/6/default/ocdbt.process_1/d").iterdir())
    assert parts
    for path in parts:
        path.unlink()
    finish(start(2, tmp_path, corpus, *shared))
    assert (folder / "damaged_step_6").exists()
    np.testing.assert_allclose(numbers(tmp_path), expected, rtol=1e-6)


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


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """Returns a folder for the compiled programs of runs that are the same."""
    return tmp_path_factory.mktemp("compiled")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("lost", "how"),
    [(0, signal.SIGKILL), (1, signal.SIGKILL), (1, signal.SIGSTOP)],
    ids=["the first", "another", "one that hangs"],
)
def test_a_process_that_is_lost_ends_the_job_and_asks_for_another(
    corpus, compiled, tmp_path, lost, how
):
    """What is killed or stopped is the program itself, not what watches over it."""
    (tmp_path / "compiled").symlink_to(compiled)
    processes = start(2, tmp_path, corpus, *ENDLESS["train"], "--peer_timeout=10")
    wait_for(tmp_path / "runs/rope/seed0/metrics.jsonl")
    watcher, other = processes[lost], processes[1 - lost]
    children = Path(f"/proc/{watcher.pid}/task/{watcher.pid}/children").read_text()
    os.kill(int(children), how)
    try:
        _, errors = other.communicate(timeout=300)
    finally:
        if how == signal.SIGSTOP:
            os.kill(int(children), signal.SIGKILL)
    assert other.returncode == 75, errors
    assert "a process of the job was lost or no longer answers" in errors
    assert watcher.wait(timeout=300) == 128 + signal.SIGKILL


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flag", "words", "wrong"),
    [
        ("--config.corpus=files:nowhere/*.txt", "nowhere/*.txt", (1,)),
        ("--config.corpus=files:nowhere/*.txt", "nowhere/*.txt", (0, 1)),
        ("--config.train.steps=many", "--config.train.steps", (1,)),
        ("--peer_timeout=0", "--peer_timeout=0 must be at least 1", (0,)),
        ("--peer_timeout=0", "--peer_timeout=0 must be at least 1", (0, 1)),
    ],
)
def test_a_command_that_is_wrong_ends_the_job_at_once(corpus, tmp_path, flag, words, wrong):
    """The data of a host may be missing, or its command be another than that of the others."""

    def how(count):
        lacking = [flag]
        jobs = enumerate(by_hand(count))
        return [(flags + lacking * (number in wrong), given) for number, (flags, given) in jobs]

    processes = start(2, tmp_path, corpus, how=how)
    try:
        errors = [printed[1] for printed in ended(processes, timeout=120)]
    finally:
        for process in processes:
            process.kill()
    for number, process in enumerate(processes):
        sentence = words if number in wrong else "a process of the job was lost"
        assert process.returncode == (2 if number in wrong else 75), errors
        assert sentence in errors[number]


FAILS_ALONE = """
import os, sys
sys.path.insert(0, "")
if "POSENC_JAX_WATCHED" in os.environ and "--process_id=1" in sys.argv:
    from experiments.training import text
    train_batch = text.train_batch

    def failing(index, *, step, **rest):
        if step == 3:
            raise {error}("a token of this process alone")
        return train_batch(index, step=step, **rest)

    text.train_batch = failing
exec(compile(open("launch.py").read(), "launch.py", "exec"))
"""


@pytest.mark.slow
@pytest.mark.parametrize("error", ["ValueError", "TypeError"])
def test_a_process_that_fails_alone_ends_the_job(corpus, tmp_path, error):
    """It must not go on to the next point, for the others wait for it in this one."""
    program = tmp_path / "program.py"
    program.write_text(FAILS_ALONE.format(error=error))
    both = "--config.schemes=rope,nope"
    first, second = start(2, tmp_path / "runs", corpus, both, program=str(program))
    try:
        errors = [printed[1] for printed in ended((first, second), timeout=240)]
    finally:
        first.kill()
        second.kill()
    assert second.returncode == 2, errors
    assert "error: a token of this process alone" in errors[1]
    assert first.returncode == 75 and "a process of the job was lost" in errors[0], errors
