"""Notices, in any stage of the program, that the scheduler or a person wants it to stop."""

import itertools
import os
import signal

PREEMPTED = 75  # EX_TEMPFAIL, the exit status that asks a queue to run the job again
_moments = itertools.count(1)


class PreemptedError(Exception):
    """Says that the job ends before its work is done, and that the same command goes on with it.

    The scheduler asked it to stop, and everything up to now is saved.
    """


def ask_again_if_stopped() -> None:
    """Makes SIGTERM end this program with status 75 until JAX listens, see ``joining.py``.

    There is nothing to save yet, and a queue that ends a job while it starts runs it again. This is
    called before JAX is imported, which takes seconds.
    """
    # An exception in the middle of an import, as sys.exit raises, can crash the interpreter.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(PREEMPTED))


def end_on_ctrl_c() -> None:
    """Makes Ctrl-C end this program at once, with a sentence and status 130.

    Nothing is raised, because Python ignores an exception in a callback of its garbage collector,
    which JAX has, and because threads of JAX and Orbax can crash an interpreter that exits. No more
    is lost than by a kill. A program that ignores Ctrl-C still does.
    """
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _end)


def _end(number, frame):
    if os.isatty(1):
        os.write(1, b"\n\033[?25h")  # the cursor, which a progress bar hides
    os.write(2, b"stopped by Ctrl-C: the same command goes on from the last checkpoint\n")
    os._exit(130)


def requested() -> bool:
    """Returns whether to save and stop now; all processes must call this equally often.

    JAX lets the processes agree on a common moment by counting the calls, so the count belongs to
    the whole program: a count that started again with each run would miss the moment.
    """
    from jax.experimental import multihost_utils  # not before ``ask_again_if_stopped``

    return multihost_utils.reached_preemption_sync_point(next(_moments))


def stop_if_requested(when: str) -> None:
    """Raises a PreemptedError, which says when the program stops, if it is to stop now."""
    if requested():
        raise PreemptedError(f"asked to stop {when}: run again")
