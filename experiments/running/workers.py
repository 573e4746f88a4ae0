"""Divides an experiment among several processes of one machine, each on cores of its own.

A step of a small model leaves cores idle, and tracing and compiling use only one. So a process on
each core finishes a sweep of small models sooner than one process on all cores.
"""

import functools
import os
import re
import subprocess
import sys
import uuid
from collections.abc import Sequence

from experiments.job_processes import CLUSTERS, PREEMPTED, WATCHED, flag, number, run_all

# The environment variable of a worker that says how many workers there are.
_COUNT = "POSENC_JAX_WORKERS"
# The environment variable that has the same value in a command and its workers, and nowhere else.
_COMMAND = "POSENC_JAX_COMMAND"
# Environment variables in which SLURM and Kubernetes say which job of an array this is.
ARRAY = ("SLURM_ARRAY_TASK_ID", "JOB_COMPLETION_INDEX")
# Flags under which ``launch.py`` trains nothing.
_UNTRAINED = re.compile("--?(status|report|dry_run|backend)(=|$)")


def run(arguments: Sequence[str]) -> None:
    """Runs the command once for each of ``--workers=N``, and returns when all have ended.

    The caller then does what they left undone as if it were alone, so a worker that is killed costs
    only time; a point that diverged is not left undone, see ``Schedule``. This is called before JAX
    is imported, because JAX takes the cores that it finds.
    """
    count, task = number(arguments, "workers") or 1, flag(arguments, "task_id")
    is_one_point = any(name in os.environ for name in ARRAY) if task is None else task != "-1"
    if count < 2 or is_one_point or any(map(_UNTRAINED.match, arguments)):
        return
    cores = _cores()
    if count > len(cores):
        _refuse(f"--workers={count} must be at most {len(cores)}, the cores of this machine")
    if flag(arguments, "num_processes") is not None:
        _refuse(
            f"--workers={count} are programs of their own, and --num_processes makes one of "
            "several: give one of the two"
        )
    os.environ[_COMMAND] = uuid.uuid4().hex
    # Workers join no cluster, even if this process could: within a step of SLURM all of them would
    # open the same port.
    environment = {name: value for name, value in os.environ.items() if name not in CLUSTERS}
    # Workers show no progress bars, because several cannot share a terminal. They end when this
    # process does.
    environment |= {"TTY_COMPATIBLE": "0", WATCHED: str(os.getpid()), _COUNT: str(count)}
    starts = [
        functools.partial(
            subprocess.Popen,
            [sys.executable, *arguments, "--share", "--workers=1"],
            env=environment,
            preexec_fn=functools.partial(_stay_on, cores[first::count]),
        )
        for first in range(count)
    ]
    try:
        workers, is_stopped = run_all(starts)
    except KeyboardInterrupt:  # which the terminal has sent to the workers too
        sys.exit(130)
    statuses = [worker.returncode for worker in workers]
    if is_stopped or PREEMPTED in statuses:
        sys.exit(PREEMPTED)
    if 2 in statuses:  # the command line or the config is wrong, as the workers have said
        sys.exit(2)


def _cores() -> list[int]:
    """Returns the cores that this process may use. Only Linux says, elsewhere it may use all."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _stay_on(cores: list[int]) -> None:
    """Keeps this process on some cores. Elsewhere than on Linux it goes wherever there is room."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)


def _refuse(why: str) -> None:
    print(f"error: {why}", file=sys.stderr)
    sys.exit(2)


def count() -> int:
    """Returns how many workers this process is one of, or 0 if it is none."""
    return int(os.environ.get(_COUNT, 0))


def command() -> str | None:
    """Returns what a command and its workers have in common, or None where it has no workers."""
    return os.environ.get(_COMMAND)
