"""Joins the processes of a job: those of a queue, those started by hand, or one alone."""

import ipaddress
import os
import sys
import threading
from typing import Any

import jax

from experiments import rendezvous
from experiments.job_processes import CLUSTERS, free_port
from experiments.preemption import PreemptedError

# Variables in which Kubernetes names the hosts of a TPU slice, and the variable that keeps a Cloud
# TPU VM from asking its metadata for them.
_HOSTS, _NO_METADATA = ("TPU_WORKER_HOSTNAMES", "TPU_PROCESS_ADDRESSES"), "TPU_SKIP_MDS_QUERY"


def join_job(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    peer_timeout: int = 300,
    start_timeout: int = 300,
) -> None:
    """Joins the job's processes; called once, before JAX has used any device.

    The first three arguments are the flags of a job that is started by hand. ``peer_timeout`` is
    the seconds of silence after which JAX takes a process for lost, and ends the other processes.
    ``start_timeout`` is the seconds that the processes have to start.

    A lone process becomes a job of one, because JAX tells ``preemption.requested`` of the
    scheduler's SIGTERM only if there is a coordinator. JAX itself recognises processes that
    ``srun`` has started, and Cloud TPU; a script that ``sbatch`` runs without ``srun`` is a lone
    process.

    Raises:
      ValueError: the environment says that there are other processes, but JAX cannot find them; or
        the first three arguments do not fit those of another process.
      PreemptedError: not all processes of a job by hand have started in time.
    """
    if coordinator is not None and num_processes is not None and process_id is not None:
        _join_by_hand(coordinator, num_processes, process_id, peer_timeout, start_timeout)
    elif cluster := _cluster():
        _join_cluster(*cluster, peer_timeout, start_timeout)
    else:
        # A long timeout, because late heartbeats on a busy machine must not end a lone process.
        _join_by_hand(f"127.0.0.1:{free_port()}", 1, 0, 24 * 3600, start_timeout)


def _join_cluster(sign: str, to_be_alone: str, peer_timeout: int, start_timeout: int) -> None:
    """Joins a job whose processes JAX finds; the first two arguments are from ``_cluster``."""
    waiting = (
        f"{sign} says that this process is one of several, and it still waits for the others to "
        f"start; check that the command runs on every host, or {to_be_alone} to run alone"
    )
    options = {"file": sys.stderr, "flush": True}
    timer = threading.Timer(rendezvous.LATE, print, [waiting], options)
    timer.daemon = True
    timer.start()
    try:
        jax.distributed.initialize(
            heartbeat_timeout_seconds=peer_timeout, initialization_timeout=start_timeout
        )
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
        raise ValueError(
            f"{sign} says that this process is one of several, but JAX could not join the others: "
            f"{reason}. Start all of them with what JAX needs (srun does), or {to_be_alone} to run "
            "alone"
        ) from None
    finally:
        timer.cancel()
    _take_all_gpus()


def _join_by_hand(
    coordinator: str, num_processes: int, process_id: int, peer_timeout: int, start_timeout: int
) -> None:
    """Joins a job whose processes are given, which may be this one alone."""
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 2**16:
        raise ValueError(
            f"--coordinator={coordinator} must be HOST:PORT of the first process, with a port in "
            "1..65535"
        )
    bound = _bound(coordinator)
    if (num_processes, process_id) != (1, 0):
        try:
            rendezvous.meet(coordinator, bound, num_processes, process_id, start_timeout)
        except TimeoutError as error:
            raise PreemptedError(f"{error}; run again") from None
    # A proxy for the web would answer, or not, in place of the coordinator.
    direct = os.environ.get("no_grpc_proxy", os.environ.get("no_proxy", ""))  # noqa: SIM112
    os.environ["no_grpc_proxy"] = ",".join(filter(None, [direct, host]))  # noqa: SIM112
    jax.config.update("jax_check_proxy_envs", False)  # it would warn of this very variable
    jax.distributed.initialize(
        coordinator,
        num_processes=num_processes,
        process_id=process_id,
        # Within a step of SLURM, JAX would leave each process one GPU.
        cluster_detection_method="deactivate",
        coordinator_bind_address=bound,
        heartbeat_timeout_seconds=peer_timeout,
    )


def _bound(coordinator) -> str | None:
    """Returns the address that process 0 listens on, or None for all interfaces.

    On all interfaces a stranger could join and end the run. But the name of a host may stand for
    its loopback interface on the host itself, where no other host would find process 0.
    """
    host = coordinator.rpartition(":")[0].strip("[]")
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return None
    return coordinator


def _cluster() -> tuple[str, str] | None:
    """Returns the sign that JAX has a cluster to join, if any, and how to remove it, in words."""
    # JAX takes TPUs where it finds them, unless it is told otherwise.
    config: Any = jax.config  # not every version has the types of its fields
    platforms = config.jax_platforms
    has_tpu = "tpu" in (platforms or "").split(",")
    for name in CLUSTERS + _HOSTS * has_tpu:
        if name in os.environ:
            return f"{name} in the environment", f"unset {name}"
    if has_tpu and _NO_METADATA not in os.environ:
        return "this Cloud TPU VM", f"set {_NO_METADATA}=1"
    return None


def _take_all_gpus() -> None:
    """Takes all GPUs of each node if SLURM has started one process on each node.

    By default JAX takes only the GPU with the number that the process has on its node, as if there
    were a process for each GPU.
    """
    tasks, nodes = (os.environ.get(f"SLURM_{name}") for name in ("NTASKS", "STEP_NUM_NODES"))
    if tasks is not None and tasks == nodes and "JAX_LOCAL_DEVICE_IDS" not in os.environ:
        for name in ("jax_cuda_visible_devices", "jax_rocm_visible_devices"):
            jax.config.update(name, os.environ.get(name.upper(), "all"))
