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


def listen(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    peer_timeout: int = 300,
) -> None:
    """Joins the job's processes; called once, before JAX has used any device.

    Args:
      coordinator: ``HOST:PORT`` of the first process, where a job is started by hand.
      num_processes: how many processes there are then.
      process_id: which of them this is, from 0.
      peer_timeout: seconds of silence after which JAX takes a process for lost, and ends the rest.

    A lone process is a job of one: only with a coordinator does JAX turn the scheduler's SIGTERM
    into a question that ``requested`` answers. What ``srun`` has started, and Cloud TPU, are
    recognised by JAX itself; a script that ``sbatch`` runs without ``srun`` is a lone process.

    Raises:
      ValueError: the environment says that there are others, but JAX cannot find them; or only
        some of the arguments are given.
    """
    by_hand = {"coordinator": coordinator, "num_processes": num_processes, "process_id": process_id}
    given = {name: value for name, value in by_hand.items() if value is not None}
    if given:
        if len(given) < len(by_hand):
            missing = " and ".join(f"--{name}" for name in by_hand if name not in given)
            raise ValueError(f"a job started by hand needs {missing} too")
        _check_by_hand(coordinator, num_processes, process_id)
        jax.distributed.initialize(
            coordinator, num_processes, process_id, heartbeat_timeout_seconds=peer_timeout
        )
        return
    found = [name for name in _CLUSTERS if name in os.environ]
    if found:
        try:
            jax.distributed.initialize(heartbeat_timeout_seconds=peer_timeout)
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


def _check_by_hand(coordinator, num_processes, process_id):
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdigit():
        raise ValueError(f"--coordinator={coordinator} must be HOST:PORT of the first process")
    if num_processes < 1 or not 0 <= process_id < num_processes:
        raise ValueError(
            f"--process_id={process_id} must be in 0..{num_processes - 1}, as there are "
            f"--num_processes={num_processes}"
        )


def requested() -> bool:
    """Says whether to save and stop now; all processes must ask equally often.

    JAX lets the processes agree on a common moment by counting the questions, so the count belongs
    to the whole program: a count that started again with each run would pass the moment by.
    """
    return multihost_utils.reached_preemption_sync_point(next(_moments))
