"""Hearing that the scheduler wants the machine back, in any stage of the program."""

import itertools

from jax.experimental import multihost_utils

_moments = itertools.count(1)


class PreemptedError(Exception):
    """The scheduler asked the job to stop; everything up to now is saved."""


def requested() -> bool:
    """Whether to save and stop now; all processes must ask equally often.

    JAX lets the processes agree on a common moment by counting the questions, so the count belongs
    to the whole program: one that started again with each run would pass the moment by.
    """
    return multihost_utils.reached_preemption_sync_point(next(_moments))
