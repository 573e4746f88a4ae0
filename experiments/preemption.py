"""Hears, in any stage of the program, that the scheduler wants to have the machine back."""

import itertools
import os
import socket

import jax
from jax.experimental import multihost_utils

# Each says that JAX has a cluster to join.
_CLUSTERS = ("SLURM_STEP_NODELIST", "JAX_COORDINATOR_ADDRESS", "TPU_NAME")

_moments = itertools.count(1)


class PreemptedError(Exception):
    """Says that the scheduler asked the job to stop; everything up to now is saved."""


def listen() -> None:
    """Joins the job's processes; called once, before JAX has used any device.

    A lone process is a job of one: only with a coordinator does JAX turn the scheduler's SIGTERM
    into a question that ``requested`` answers. What ``srun`` has started, and Cloud TPU, are
    recognised by JAX itself; a script that ``sbatch`` runs without ``srun`` is a lone process.

    Raises:
      ValueError: the environment says that there are others, but JAX cannot find them.
    """
    found = [name for name in _CLUSTERS if name in os.environ]
    if found:
        try:
            jax.distributed.initialize()
        except Exception as error:
            reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
            raise ValueError(
                f"{', '.join(found)} in the environment says that this process has others beside "
                f"it, but JAX could not join them: {reason}. Start all of them with what JAX needs "
                f"(srun does), or unset {found[0]} for a process alone"
            ) from None
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    # Nobody waits for it: a machine so busy that heartbeats are late must not end the run.
    jax.distributed.initialize(
        address,
        num_processes=1,
        process_id=0,
        # On every interface a stranger could join, and end the run.
        coordinator_bind_address=address,
        heartbeat_timeout_seconds=24 * 3600,
    )


def requested() -> bool:
    """Says whether to save and stop now; all processes must ask equally often.

    JAX lets the processes agree on a common moment by counting the questions, so the count belongs
    to the whole program: a count that started again with each run would pass the moment by.
    """
    return multihost_utils.reached_preemption_sync_point(next(_moments))
