"""Tests what watches over each process of a job, and how processes find each other."""

import sys

import jax
import pytest
import runs

from experiments import job_processes, preemption, rendezvous

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
    surround(monkeypatch, variables)
    assert job_processes.are_expected(["launch.py", *flag.split()]) == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("host", 2, 0), "--coordinator=host must be HOST:PORT"),
        (("host:99999", 2, 0), "--coordinator=host:99999 must be"),
    ],
)
def test_a_job_by_hand_at_no_address_is_refused(arguments, message):
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
    surround(monkeypatch, variables)
    told = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *_, **given: told.append(given))
    before = jax.config.jax_platforms
    jax.config.update("jax_platforms", platforms)
    try:
        preemption.listen()
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
from experiments import preemption
jax.distributed.initialize = lambda **_: jax.config.update("jax_cuda_visible_devices", "0")
preemption.listen()
print(jax.config.read("jax_cuda_visible_devices"))
"""
    done = runs.program("-c", program, **{f"SLURM_{n}": str(v) for n, v in variables.items()})
    assert done.output == f"{expected}\n", done.errors


def test_a_job_by_hand_takes_nothing_from_the_queue_around_it(monkeypatch):
    """Within a step of SLURM, JAX would leave each process one GPU."""
    told = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *_, **given: told.append(given))
    monkeypatch.setattr(rendezvous, "meet", lambda *_: None)
    preemption.listen("host:1", 2, 0)
    assert told[0]["cluster_detection_method"] == "deactivate"
