"""Submits to machines that are rented for it: Cloud TPU VMs, or any cloud through SkyPilot."""

import dataclasses
import shlex

import yaml

from experiments.job_processes import PREEMPTED
from experiments.results.bucket import is_in_bucket
from experiments.running.submit import PORT, Backend, peers


@dataclasses.dataclass(frozen=True)
class TPUVM(Backend):
    """Asks for one TPU slice that runs all points, and runs them again whenever it starts.

    Attributes:
      zone: the zone, such as "us-west4-a".
      type: the slice, such as "v5litepod-16".
      runtime: the software of the machine, such as "v2-alpha-tpuv5-lite".
      setup: a shell command that fetches the repository and enters its folder.
      spot: whether the slice may be preempted.
    """

    zone: str
    type: str
    runtime: str
    setup: str
    spot: bool = True

    file_name = "SCRIPT"

    def file(self, job):
        """Returns the script that every host runs at its start; JAX finds the other hosts."""
        job.check_absolute("results must be on a disk that outlives the slice, or in a bucket")
        return f"#! /bin/bash\n{self.setup} && {shlex.join(job.command)}"

    def commands(self, job, path):
        command = [
            *("gcloud", "compute", "tpus", "queued-resources", "create", job.name),
            *(f"--node-id={job.name}", f"--zone={self.zone}", f"--accelerator-type={self.type}"),
            *(f"--runtime-version={self.runtime}", f"--metadata-from-file=startup-script={path}"),
            *(["--spot"] if self.spot else []),
        ]
        return [command]

    def names(self, job):
        return [job.name]


@dataclasses.dataclass(frozen=True)
class Sky(Backend):
    """Launches a managed job of SkyPilot for each point.

    Attributes:
      accelerators: such as "H100:8" or "tpu-v5litepod-8".
      bucket: the bucket that is mounted as the workdir, such as "gs://mine" or "s3://mine"; none
        for a workdir in a bucket.
      nodes: nodes of a point.
      spot: whether nodes may be preempted.
      max_restarts: how often a point that failed may start again; a preempted one always does.
    """

    accelerators: str
    bucket: str = ""
    nodes: int = 1
    spot: bool = True
    max_restarts: int = 3

    file_name = "task.yaml"

    def file(self, job):
        """Returns the task, in which the variable POINT has the number of the point."""
        if bool(self.bucket) == is_in_bucket(job.workdir):
            raise ValueError(
                f"--backend=sky with --workdir={job.workdir} and --resource=bucket={self.bucket}: "
                "give a folder and the bucket that it is, or gs://BUCKET/FOLDER and no bucket"
            )
        mount = {"source": self.bucket, "mode": "MOUNT"}
        first = f'"$(echo "$SKYPILOT_NODE_IPS" | head -n1)":{PORT}'
        others = peers(first, self.nodes, "$SKYPILOT_NODE_RANK") if self.nodes > 1 else []
        # The dependencies bring JAX for CPUs, which would leave the accelerators idle.
        jax = "jax[tpu]" if self.accelerators.startswith("tpu") else "jax[cuda12]"
        task = {
            "name": job.name,
            "num_nodes": self.nodes,
            "workdir": ".",
            "resources": {
                "accelerators": self.accelerators,
                "use_spot": self.spot,
                "job_recovery": {
                    "max_restarts_on_errors": self.max_restarts,
                    "recover_on_exit_codes": [PREEMPTED],
                },
            },
            "envs": {"POINT": "0"},
            "file_mounts": {str(job.workdir): mount} if self.bucket else {},
            "setup": f'pip install "{jax}" -e ".[experiments{"" if self.bucket else ",gcs"}]"',
            "run": job.of_point("$POINT", *others),
        }
        return yaml.safe_dump(task, sort_keys=False)

    def commands(self, job, path):
        return [
            ["sky", "jobs", "launch", "-y", "-d", "-n", name, "--env", f"POINT={point}", path]
            for point, name in enumerate(job.names)
        ]
