"""Notices, in any stage of the program, that the scheduler or a person wants it to stop."""

import itertools
import signal

from jax.experimental import multihost_utils

_moments = itertools.count(1)
_ctrl_c: list[bool] = []


class PreemptedError(Exception):
    """Says that the job ends before its work is done, and that the same command goes on with it.

    The scheduler asked it to stop, or a process has not started; everything up to now is saved.
    """


def remember_ctrl_c() -> None:
    """Makes ``requested`` raise the KeyboardInterrupt of a Ctrl-C that nothing else has noticed.

    Python ignores an exception in a callback of its garbage collector, and JAX has such a callback.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _remember)


def _remember(number, frame):
    _ctrl_c.append(True)
    signal.default_int_handler(number, frame)


def requested() -> bool:
    """Returns whether to save and stop now; all processes must call this equally often.

    JAX lets the processes agree on a common moment by counting the calls, so the count belongs to
    the whole program: a count that started again with each run would miss the moment. Raises a
    KeyboardInterrupt after Ctrl-C, see ``remember_ctrl_c``.
    """
    if _ctrl_c:
        raise KeyboardInterrupt
    return multihost_utils.reached_preemption_sync_point(next(_moments))


def stop_if_requested(when: str) -> None:
    """Raises a PreemptedError, which says when the program stops, if it is to stop now."""
    if requested():
        raise PreemptedError(f"asked to stop {when}: run again")
