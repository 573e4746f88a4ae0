"""Notices, in any stage of the program, that the scheduler wants the machine back."""

import itertools

from jax.experimental import multihost_utils

_moments = itertools.count(1)


class PreemptedError(Exception):
    """Says that the job ends before its work is done, and that the same command goes on with it.

    The scheduler asked it to stop, or a process has not started; everything up to now is saved.
    """


def requested() -> bool:
    """Returns whether to save and stop now; all processes must call this equally often.

    JAX lets the processes agree on a common moment by counting the calls, so the count belongs to
    the whole program: a count that started again with each run would miss the moment.
    """
    return multihost_utils.reached_preemption_sync_point(next(_moments))


def stop_if_requested(when: str) -> None:
    """Raises a PreemptedError, which says when the program stops, if it is to stop now."""
    if requested():
        raise PreemptedError(f"asked to stop {when}: run again")
