"""Joins the processes of a job: those of a queue, those started by hand, or one alone."""

import ipaddress
import os
import socket
from typing import Any

import jax

# Environment variables that say that JAX has a cluster to join; and, for TPUs, those in which
# Kubernetes names the hosts of a slice, and the one that keeps a Cloud TPU VM from asking for them.
_CLUSTERS = ("SLURM_STEP_NODELIST", "JAX_COORDINATOR_ADDRESS")
_HOSTS, _NO_METADATA = ("TPU_WORKER_HOSTNAMES", "TPU_PROCESS_ADDRESSES"), "TPU_SKIP_MDS_QUERY"


def join_job(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    peer_timeout: int = 300,
    start_timeout: int = 300,
) -> None:
    """Joins the job's processes; called once, before JAX has used any device.

    The first three arguments are the flags of a job that is started by hand. JAX aborts this
    process if the others have not started within ``start_timeout`` seconds, or one of them is
    silent for ``peer_timeout`` seconds later on.

    A lone process becomes a job of one, because JAX tells ``preemption.requested`` of the
    scheduler's SIGTERM only if there is a coordinator. JAX itself recognises processes that
    ``srun`` has started, and Cloud TPU; a script that ``sbatch`` runs without ``srun`` is a lone
    process.
    """
    options: dict[str, Any] = {"initialization_timeout": start_timeout}
    if coordinator is not None:
        options |= _by_hand(coordinator, num_processes, process_id, peer_timeout)
    elif _is_in_cluster():
        options |= {"heartbeat_timeout_seconds": peer_timeout}
    else:
        # A long timeout, because late heartbeats on a busy machine must not end a lone process.
        options |= _by_hand(f"127.0.0.1:{free_port()}", 1, 0, 24 * 3600)
    jax.distributed.initialize(**options)
    if coordinator is None:
        _take_all_gpus()


def _by_hand(coordinator, num_processes, process_id, peer_timeout) -> dict[str, Any]:
    """Returns how a process joins others that are given, which may be itself alone."""
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 2**16:
        raise ValueError(
            f"--coordinator={coordinator} must be HOST:PORT of the first process, with a port in "
            "1..65535"
        )
    # A proxy for the web would answer, or not, in place of the coordinator.
    direct = os.environ.get("no_grpc_proxy", os.environ.get("no_proxy", ""))  # noqa: SIM112
    os.environ["no_grpc_proxy"] = ",".join(filter(None, [direct, host]))  # noqa: SIM112
    jax.config.update("jax_check_proxy_envs", False)  # it would warn of this very variable
    return {
        "coordinator_address": coordinator,
        "num_processes": num_processes,
        "process_id": process_id,
        # Within a step of SLURM, JAX would leave each process one GPU.
        "cluster_detection_method": "deactivate",
        "coordinator_bind_address": coordinator if _is_address(host) else None,
        "heartbeat_timeout_seconds": peer_timeout,
    }


def _is_address(host: str) -> bool:
    """Returns whether process 0 is to listen at this address alone, where no stranger can join.

    Otherwise it listens on all interfaces, because the name of a host may stand for its loopback
    interface on the host itself, where no other host would find it.
    """
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


def _is_in_cluster() -> bool:
    """Returns whether JAX has a cluster to join."""
    config: Any = jax.config  # not every version has the types of its fields
    # JAX takes TPUs where it finds them, unless it is told otherwise.
    has_tpu = "tpu" in (config.jax_platforms or "").split(",")
    signs = _CLUSTERS + _HOSTS * has_tpu
    on_tpu_vm = has_tpu and _NO_METADATA not in os.environ
    return on_tpu_vm or any(name in os.environ for name in signs)


def _take_all_gpus() -> None:
    """Takes all GPUs of each node if SLURM has started one process on each node.

    By default JAX takes only the GPU with the number that the process has on its node, as if there
    were a process for each GPU.
    """
    tasks, nodes = (os.environ.get(f"SLURM_{name}") for name in ("NTASKS", "STEP_NUM_NODES"))
    if tasks is not None and tasks == nodes and "JAX_LOCAL_DEVICE_IDS" not in os.environ:
        for name in ("jax_cuda_visible_devices", "jax_rocm_visible_devices"):
            jax.config.update(name, os.environ.get(name.upper(), "all"))


def free_port() -> int:
    """Returns a port of this machine that nothing listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]
