"""Tests how the processes of a job by hand find each other; threads stand in for processes."""

import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import common
import jax
import pytest
import tiny_runs as runs

from experiments import job_processes, joining, rendezvous


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(rendezvous, "_ANSWER", 0.5)


def outcomes(*processes, timeout=10.0):
    """Returns what each process, a number and the count that it expects, ends with, and seconds."""
    address, begun = f"127.0.0.1:{runs.free_port()}", time.monotonic()

    def of(process):
        number, count = process
        try:
            rendezvous.meet(address, address, count, number, timeout)
        except (ValueError, TimeoutError) as error:
            return error
        return None

    with ThreadPoolExecutor(len(processes)) as pool:
        return [*pool.map(of, processes)], time.monotonic() - begun


def test_processes_that_are_all_there_go_on_in_any_order():
    assert outcomes((2, 3), (0, 3), (1, 3))[0] == [None] * 3


@pytest.mark.parametrize(
    ("processes", "words"),
    [
        ([(0, 3), (1, 3), (1, 3)], "two processes have --process_id=1"),
        ([(0, 3), (0, 3), (1, 3)], "two processes have --process_id=0"),
        ([(0, 2), (2, 2)], "--process_id=2 must be in 0..1"),
        ([(0, 3), (1, 2)], "--num_processes is 3 in process 0 and 2 in process 1"),
    ],
)
def test_every_process_is_told_what_is_wrong_in_seconds(processes, words):
    errors, seconds = outcomes(*processes)
    assert all(isinstance(error, ValueError) and words in str(error) for error in errors)
    assert seconds < 3


def test_a_process_that_is_missing_is_named_and_the_others_end(monkeypatch, capsys):
    monkeypatch.setattr(rendezvous, "LATE", 0.3)
    errors, _ = outcomes((0, 4), (2, 4), timeout=1.0)
    assert all(isinstance(error, TimeoutError) for error in errors)
    assert "missing: --process_id=1, --process_id=3" in str(errors[0])
    # Process 0 says so early, and the other process repeats it.
    assert capsys.readouterr().err.count("missing: --process_id=1, --process_id=3") == 2


def test_a_process_that_was_started_again_is_no_second_one():
    address = f"127.0.0.1:{runs.free_port()}"
    with ThreadPoolExecutor() as pool:
        first = pool.submit(rendezvous.meet, address, address, 3, 0, 10.0)
        with pytest.raises(TimeoutError):
            rendezvous.meet(address, None, 3, 1, 0.5)
        others = [pool.submit(rendezvous.meet, address, None, 3, number, 10.0) for number in (1, 2)]
        assert [process.result() for process in (first, *others)] == [None] * 3


def test_a_stranger_neither_joins_nor_ends_the_job():
    port = runs.free_port()
    address = f"127.0.0.1:{port}"
    with ThreadPoolExecutor() as pool:
        first = pool.submit(rendezvous.meet, address, address, 2, 0, 10.0)
        time.sleep(0.3)
        for words in (b"GET / HTTP/1.1\r\n\r\n", b"[1]\n", b'{"process": "1"}\n', b""):
            with socket.create_connection(("127.0.0.1", port)) as stranger:
                stranger.sendall(words)
        assert not first.done()
        with pytest.raises(OSError):  # of another interface: only the given address listens
            socket.create_connection(("127.0.0.2", port), timeout=1)
        rendezvous.meet(address, None, 2, 1, 10.0)
        first.result()


def test_a_port_of_another_program_is_said(capsys):
    """A job that runs already answers in the words of JAX."""
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor() as pool:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        other = pool.submit(rendezvous.meet, address, None, 2, 1, 1.0)
        connection, _ = server.accept()
        connection.sendall(b"\0\0\x12\x04\0\0\0\0\0\n")
        connection.close()
        with pytest.raises(TimeoutError):
            other.result()
        assert "the job runs already, or another program" in capsys.readouterr().err
        common.refuses("--coordinator", lambda: rendezvous.meet(address, address, 2, 0, 1.0))


# What watches over each process


OF_QUEUES = ("SLURM_STEP_NODELIST", "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS", "TPU_WORKER_HOSTNAMES")
OF_QUEUES += ("JAX_COORDINATOR_ADDRESS", "TPU_SKIP_MDS_QUERY")


def surround(monkeypatch, variables):
    """Sets environment variables, and no others that a queue sets."""
    for name in OF_QUEUES:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


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
        ({}, "--num_processes=2", True),
        ({}, "-num_processes 12", True),
        ({"SLURM_NTASKS": "4"}, "", False),  # sbatch without srun
        ({"SLURM_NTASKS": "4", "SLURM_STEP_NODELIST": "n[0-3]"}, "", True),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, "", False),
        ({"TPU_WORKER_HOSTNAMES": "host-0,host-1"}, "", True),
        ({"POSENC_JAX_WATCHED": "1"}, "--num_processes=2", False),
    ],
)
def test_who_is_watched(monkeypatch, variables, flag, expected):
    surround(monkeypatch, variables)
    assert job_processes.are_expected(["launch.py", *flag.split()]) == expected


@pytest.mark.parametrize("address", ["host", "host:99999"])
def test_a_job_by_hand_at_no_address_is_refused(address):
    common.refuses(f"--coordinator={address} must be", lambda: joining.join_job(address, 2, 0))


@pytest.mark.parametrize(
    ("variables", "platforms", "joins"),
    [
        ({}, "cpu", False),
        ({}, "tpu,cpu", True),  # a Cloud TPU VM, whose metadata JAX asks
        ({"TPU_SKIP_MDS_QUERY": "1"}, "tpu,cpu", False),
        ({"TPU_SKIP_MDS_QUERY": "1", "TPU_WORKER_HOSTNAMES": "a,b"}, "tpu,cpu", True),  # GKE
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, "cpu", False),
        ({"SLURM_STEP_NODELIST": "n0"}, "cpu", True),
    ],
)
def test_the_hosts_of_a_slice_are_joined_where_jax_finds_tpus(
    variables, platforms, joins, monkeypatch
):
    surround(monkeypatch, variables)
    told = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *_, **given: told.append(given))
    before = jax.config.jax_platforms
    jax.config.update("jax_platforms", platforms)
    try:
        joining.join_job()
    finally:
        jax.config.update("jax_platforms", before)
    assert ["num_processes" not in keywords for keywords in told] == [joins]


@pytest.mark.slow
@pytest.mark.parametrize(("tasks", "expected"), [(1, "all"), (2, "0")])
def test_one_process_a_node_takes_all_gpus_of_the_node(tasks, expected):
    """As submitit starts them: JAX alone would take the GPU of the process's number on its node."""
    variables = {"JOB_ID": 7, "STEP_NODELIST": "n0", "STEP_NUM_NODES": 1, "NTASKS": tasks}
    variables |= {"PROCID": 0, "LOCALID": 0}
    program = """
import jax
from experiments import joining
jax.distributed.initialize = lambda **_: jax.config.update("jax_cuda_visible_devices", "0")
joining.join_job()
print(jax.config.read("jax_cuda_visible_devices"))
"""
    done = runs.program("-c", program, **{f"SLURM_{n}": str(v) for n, v in variables.items()})
    assert done.output == f"{expected}\n", done.errors


def test_a_job_by_hand_takes_nothing_from_the_queue_around_it(monkeypatch):
    """Within a step of SLURM, JAX would leave each process one GPU."""
    told = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *_, **given: told.append(given))
    monkeypatch.setattr(rendezvous, "meet", lambda *_: None)
    joining.join_job("host:1", 2, 0)
    assert told[0]["cluster_detection_method"] == "deactivate"
