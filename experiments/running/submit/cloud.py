"""Submits to machines that are rented for it: Cloud TPU VMs, or any cloud through SkyPilot."""

import dataclasses
import shlex
import tempfile
from pathlib import Path

import yaml

from experiments.job_processes import PREEMPTED
from experiments.results.bucket import is_in_bucket
from experiments.running.submit import PORT, Job, peers, run


@dataclasses.dataclass(frozen=True)
class TPUVM:
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

    def text(self, job: Job) -> str:
        """Returns the script of every host, and the command that asks for the slice."""
        return f"{self.script(job)}\n\n{shlex.join(self.command(job, 'SCRIPT'))}"

    def submit(self, job: Job) -> list[str]:
        """Asks for the slice, and returns its name."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "start.sh"
            path.write_text(self.script(job))
            run(self.command(job, str(path)))
        return [job.name]

    def script(self, job: Job) -> str:
        """Returns the script that every host runs at its start; JAX finds the other hosts.

        Raises:
          ValueError: the hosts would write the results to disks of their own.
        """
        job.check_absolute("results must be on a disk that outlives the slice, or in a bucket")
        return f"#! /bin/bash\n{self.setup} && {shlex.join(job.command)}"

    def command(self, job: Job, script: str) -> list[str]:
        """Returns the command that asks for the slice, whose hosts run the file ``script``."""
        return [
            *("gcloud", "compute", "tpus", "queued-resources", "create", job.name),
            *(f"--node-id={job.name}", f"--zone={self.zone}", f"--accelerator-type={self.type}"),
            *(f"--runtime-version={self.runtime}", f"--metadata-from-file=startup-script={script}"),
            *(["--spot"] if self.spot else []),
        ]


@dataclasses.dataclass(frozen=True)
class Sky:
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

    def text(self, job: Job) -> str:
        """Returns the task, and the command that launches it for each point."""
        commands = [shlex.join(self.command(job, n, "task.yaml")) for n in range(job.points)]
        return yaml.safe_dump(self.task(job), sort_keys=False) + "\n" + "\n".join(commands)

    def submit(self, job: Job) -> list[str]:
        """Launches the task for each point, and returns the names of the jobs."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "task.yaml"
            path.write_text(yaml.safe_dump(self.task(job), sort_keys=False))
            for point in range(job.points):
                run(self.command(job, point, str(path)))
        return [f"{job.name}-{point}" for point in range(job.points)]

    def task(self, job: Job) -> dict:
        """Returns the task, in which the variable POINT has the number of the point.

        Raises:
          ValueError: nodes would write the results to disks of their own.
        """
        if bool(self.bucket) == is_in_bucket(job.workdir):
            raise ValueError(
                f"--backend=sky with --workdir={job.workdir} and --resource=bucket={self.bucket}: "
                "give a folder and the bucket that it is, or gs://BUCKET/FOLDER and no bucket"
            )
        mount = {"source": self.bucket, "mode": "MOUNT"}
        first = f'"$(echo "$SKYPILOT_NODE_IPS" | head -n1)":{PORT}'
        others = peers(first, self.nodes, "$SKYPILOT_NODE_RANK") if self.nodes > 1 else []
        return {
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
            "setup": f'pip install -e ".[experiments{"" if self.bucket else ",gcs"}]"',
            "run": job.of_point("$POINT", *others),
        }

    def command(self, job: Job, point: int, task: str) -> list[str]:
        """Returns the command that launches the file ``task`` for one point."""
        name = f"{job.name}-{point}"
        return ["sky", "jobs", "launch", "-y", "-d", "-n", name, "--env", f"POINT={point}", task]
