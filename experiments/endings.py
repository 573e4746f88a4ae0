"""Ends a program that runs experiments, alone or as one process of a job."""

import contextlib
import os
import re
import sys
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

import jax

from experiments import preemption

_LOST = (
    "a process of the job was lost, see above: everything up to the last checkpoint is saved, run "
    "again"
)
# Words in the errors of JAX when a collective operation has lost a peer.
_SIGNS = re.compile("Gloo|NCCL|UNAVAILABLE|ABORTED|DEADLINE_EXCEEDED|[Cc]onnection")
_TO_END = 20  # seconds within which all processes of a job meet the same error


def status_of(run: Callable[..., int], *arguments: Any) -> int:
    """Calls ``run`` and returns the exit status: what it returns, or what its error stands for.

    The status is 2 after wrong input, and 75 if the scheduler asked to stop or another process of
    the job was lost.
    """
    try:
        return run(*arguments)
    except (ValueError, TypeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return _end_job(2)
    except preemption.PreemptedError as stop:
        print(stop, file=sys.stderr)
        return preemption.PREEMPTED
    except Exception as error:
        if not _has_peers():
            raise
        traceback.print_exc()
        if type(error).__name__ == "JaxRuntimeError" and _SIGNS.search(str(error)):
            print(_LOST, file=sys.stderr)
            end_at_once(preemption.PREEMPTED)
        return _end_job(1)


def end_at_once(status: int) -> NoReturn:
    """Ends this process without the interpreter's exit."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _has_peers() -> bool:
    return jax.distributed.is_initialized() and jax.process_count() > 1


def _end_job(status: int) -> int:
    """Returns the status of a lone process; ends a process of several, which the others wait for.

    All may end alike, and are given time for it, as JAX aborts a process that loses another.
    """
    if _has_peers():
        from orbax.checkpoint.multihost import get_barrier_sync_fn

        with contextlib.suppress(Exception):
            get_barrier_sync_fn()(key="all end", timeout_ms=1000 * _TO_END)
        end_at_once(status)
    return status
