"""Tests the watcher of a process that has others beside it."""

import signal
import sys

import pytest
from jax.errors import JaxRuntimeError

from experiments import peers

ALONE = ("SLURM_STEP_NODELIST", "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS", "TPU_WORKER_HOSTNAMES")


@pytest.fixture(autouse=True)
def restored():
    """Puts back what the watcher does on SIGTERM."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


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
    assert peers.watch([sys.executable, "-c", program]) == status
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
    assert peers.are_expected(["launch.py", *flag.split()]) == expected


def test_which_errors_are_a_lost_peer():
    lost = "Gloo all-reduce failed: Connection reset by peer"
    assert peers.is_loss(JaxRuntimeError(f"UNKNOWN: {lost}"))
    assert not peers.is_loss(JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory"))
    assert not peers.is_loss(RuntimeError(lost))
