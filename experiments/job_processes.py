"""Watches one process of a job that has several: if one is lost, JAX ends the others.

A collective operation that loses a peer raises an error, if its transport notices. If not, JAX ends
the process by SIGABRT once the peer or the coordinator is silent for too long. A watcher is a
process that uses no device and joins no job; it turns SIGABRT into a message, and into the exit
status that asks a queue to run the job again.
"""

import ctypes
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence

LOST = (
    "a process of the job was lost or no longer answers, or did not start in time, see above: "
    "everything up to the last checkpoint is saved, run again"
)
# Words in the errors of JAX when a collective operation has lost a peer.
_SIGNS = re.compile("Gloo|NCCL|UNAVAILABLE|ABORTED|DEADLINE_EXCEEDED|[Cc]onnection")
PREEMPTED = 75  # EX_TEMPFAIL, the exit status that asks a queue to run the job again
WATCHED = "POSENC_JAX_WATCHED"
_PR_SET_PDEATHSIG = 1
# Environment variables that say that JAX has a cluster to join.
CLUSTERS = ("SLURM_STEP_NODELIST", "JAX_COORDINATOR_ADDRESS")
# How many processes a queue has started for the job.
_COUNTS = ("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS")


def ask_again_if_stopped() -> None:
    """Makes SIGTERM end this program with status 75 until JAX listens, see ``joining.py``.

    There is nothing to save yet, and a queue that ends a job while it starts runs it again.
    """
    # An exception in the middle of an import, as sys.exit raises, can crash the interpreter.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(PREEMPTED))


def are_expected(arguments: Sequence[str]) -> bool:
    """Returns whether this process is one of several that must be watched, and is not watched yet.

    ``arguments`` may have ``--num_processes``. This is called before JAX is imported, because a
    watcher does not need JAX.
    """
    if WATCHED in os.environ:
        return False
    counts = [os.environ.get(name, "") for name in _COUNTS]
    in_queue = "SLURM_STEP_NODELIST" in os.environ and any(c not in ("", "0", "1") for c in counts)
    on_pod = "," in os.environ.get("TPU_WORKER_HOSTNAMES", "")
    return in_queue or on_pod or (number(arguments, "num_processes") or 1) > 1


def flag(arguments: Sequence[str], name: str) -> str | None:
    """Returns the last value of a flag, or None; the rest of the command line may be wrong."""
    values = re.findall(rf"\0--?{name}[=\0]([^\0]*)", "\0".join(["", *arguments]))
    return values[-1] if values else None


def number(arguments: Sequence[str], name: str) -> int | None:
    """Returns the last value of a flag as a whole number, or None."""
    value = flag(arguments, name)
    return int(value) if value and value.isdecimal() else None


def watch(command: Sequence[str]) -> int:
    """Runs the command to its end and returns its exit status, or 75 if a peer was lost.

    SIGTERM is passed on. If the watcher itself is killed, the command is asked to stop.
    """
    environment = os.environ | {WATCHED: str(os.getpid())}
    (process,), _ = run_all([lambda: subprocess.Popen(command, env=environment)])
    status = process.returncode
    if status == -signal.SIGABRT:
        print(LOST, file=sys.stderr)
        return PREEMPTED
    return status if status >= 0 else 128 - status


def run_all(
    starts: Iterable[Callable[[], subprocess.Popen]],
) -> tuple[list[subprocess.Popen], bool]:
    """Runs processes to their end; returns them, and whether a SIGTERM came and was passed on."""
    processes: list[subprocess.Popen] = []
    stops = []

    def stop(*_):
        stops.append(True)
        for process in processes:
            process.terminate()

    before = signal.signal(signal.SIGTERM, stop)
    try:
        for start in starts:
            processes.append(start())
        if stops:  # SIGTERM may have come before a process was in the list
            stop()
        for process in processes:
            process.wait()
    finally:
        signal.signal(signal.SIGTERM, before)
    return processes, bool(stops)


def free_port() -> int:
    """Returns a port of this machine that nothing listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def is_loss(error: Exception) -> bool:
    """Returns whether an error of JAX means that a collective operation has lost a peer."""
    return type(error).__name__ == "JaxRuntimeError" and bool(_SIGNS.search(str(error)))


def end_with_watcher() -> None:
    """Makes Linux send SIGTERM to this process when its watcher dies, in whatever way."""
    watcher = os.environ.get(WATCHED)
    if watcher is None or not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(watcher):  # the watcher died before the call of prctl
        sys.exit(PREEMPTED)
