"""Defines what the commands of this package share: how they end, and how they read an encoding."""

import argparse
import contextlib
import functools
import json
import os
import re
import sys
import traceback
from collections.abc import Callable, Collection
from typing import Any, NoReturn

import jax

from experiments import preemption
from posenc_jax.registry import REGISTRY, suggest

_LOST = (
    "a process of the job was lost, see above: everything up to the last checkpoint is saved, run "
    "again"
)
# Words in the errors of JAX when a collective operation has lost a peer.
_SIGNS = re.compile("Gloo|NCCL|UNAVAILABLE|ABORTED|DEADLINE_EXCEEDED|[Cc]onnection")
_TO_END = 20  # seconds within which all processes of a job meet the same error


def exit_status(main: Callable[..., None]) -> Callable[..., int]:
    """Makes a command return an exit status, see ``status_of``; 0 at its end."""

    def run(*arguments: Any) -> int:
        main(*arguments)
        return 0

    return functools.wraps(main)(functools.partial(status_of, run))


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


def count(text: str) -> int:
    """Reads a whole number of at least 1, as a ``type`` of argparse."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number of at least 1")
    return int(text)


def counts(text: str) -> list[int]:
    """Reads whole numbers of at least 1, separated by commas, as a ``type`` of argparse."""
    return [count(part) for part in text.split(",")]


def some_of(known: Collection[str]) -> Callable[[str], list[str]]:
    """Returns a ``type`` of argparse that reads known names, separated by commas."""

    def names(text: str) -> list[str]:
        for name in text.split(","):
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name!r} is unknown{suggest(name, known)}")
        return text.split(",")

    return names


schemes = some_of(REGISTRY)


def json_object(text: str) -> dict[str, Any]:
    """Reads an object of JSON, as a ``type`` of argparse."""
    try:
        given = json.loads(text)
    except ValueError:
        given = None
    if not isinstance(given, dict):
        raise argparse.ArgumentTypeError(f'{text} must be an object of JSON, such as {{"a": 1}}')
    return given


def encoding(text: str) -> dict[str, Any]:
    """Reads an encoding, a JSON object with a name and keywords, as a ``type`` of argparse."""
    given = json_object(text)
    if "name" not in given:
        raise argparse.ArgumentTypeError(
            f'{text} must be JSON with a name, such as {{"name": "yarn", "factor": 4.0}}'
        )
    return given
