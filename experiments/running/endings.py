"""Ends a program that runs experiments, alone or as one process of a job."""

import contextlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

import jax
from jax.errors import JaxRuntimeError

from experiments import job_processes, joining, preemption

# Seconds within which all processes of a job meet the same error, and within which they start.
_TO_FAIL, _TO_START = 10, 240
_STOPPED = "stopped by Ctrl-C: the same command goes on from the last checkpoint"


def status_of(run: Callable[..., int], *arguments: Any) -> int:
    """Calls ``run`` and returns the exit status: what it returns, or what its error stands for.

    The status is 2 after wrong input, 75 if the scheduler asked to stop or another process of the
    job was lost, and 130 after Ctrl-C.
    """
    try:
        return run(*arguments)
    except (ValueError, TypeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        if not _all_fail():
            traceback.print_exc()
            _end_alone(2)
        return 2
    except preemption.PreemptedError as stop:
        print(stop, file=sys.stderr)
        return job_processes.PREEMPTED
    except KeyboardInterrupt:
        if jax.process_count() > 1:
            raise
        print(_STOPPED, file=sys.stderr)
        return 130
    except Exception as error:
        if jax.process_count() == 1:
            raise
        traceback.print_exc()
        if job_processes.is_loss(error):
            print(job_processes.LOST, file=sys.stderr)
            _end_alone(job_processes.PREEMPTED)
        _end_alone(1)


def refuse(sentence: str) -> NoReturn:
    """Ends the program with a sentence that says what is wrong with its command.

    The other processes of the job, if any, may have another command, and wait until this one joins
    them. So it joins them, and they notice that it ends. JAX aborts a process that waits in vain.
    """
    print(f"error: {sentence}", file=sys.stderr, flush=True)
    if job_processes.WATCHED in os.environ:
        print(
            f"the other processes of the job are told, if they start within {_TO_START} s",
            file=sys.stderr,
            flush=True,
        )
        for stop in (signal.SIGINT, signal.SIGTERM):
            signal.signal(stop, signal.SIG_DFL)
        timer = threading.Timer(_TO_START, _end_alone, [2])
        timer.daemon = True
        timer.start()
        with contextlib.suppress(Exception):  # the sentence above stays the reason
            count, process = (
                job_processes.number(sys.argv, name) for name in ("num_processes", "process_id")
            )
            joining.join_job(job_processes.flag(sys.argv, "coordinator"), count, process)
            if _all_fail():
                sys.exit(2)
        _end_alone(2)
    sys.exit(2)


def _all_fail() -> bool:
    """Returns whether the other processes of the job, if any, fail within seconds like this one.

    A mistake in the command is the same in all processes. But a host may lack the data, or room on
    its disk, and the others then wait for it.
    """
    if not jax.distributed.is_initialized() or jax.process_count() == 1:
        return True
    from orbax.checkpoint.multihost import get_barrier_sync_fn

    try:
        get_barrier_sync_fn()(key="all fail", timeout_ms=1000 * _TO_FAIL)
    except JaxRuntimeError:
        return False
    return True


def _end_alone(status: int) -> NoReturn:
    """Ends this process at once; a normal exit would wait for processes that wait for this one."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
