"""Submits an experiment to any cloud through SkyPilot, as a pipeline of stages."""

import dataclasses
import shlex

import yaml

from experiments.preemption import PREEMPTED
from experiments.running.submit import Backend

# Each node runs every so-many-th point of the stage, one after the other. Points that have ended
# before a preemption end at once when they are run again.
_RUN = """for POINT in $(seq "$SKYPILOT_NODE_RANK" "$SKYPILOT_NUM_NODES" {last}); do
  {command} --task_id="$POINT" || exit $?
done
"""


@dataclasses.dataclass(frozen=True)
class Sky(Backend):
    """Launches a pipeline of managed jobs, a job for each stage, which several nodes may divide.

    Attributes:
      accelerators: such as "H100:8" or "tpu-v5litepod-8".
      bucket: the bucket that is mounted as the workdir, such as "gs://mine" or "s3://mine"; none
        for a workdir in a bucket.
      nodes: the nodes among which the points of a stage are divided.
      spot: whether nodes may be preempted.
      max_restarts: how often a stage that has failed may start again; a preempted one always does.
    """

    accelerators: str
    bucket: str = ""
    nodes: int = 1
    spot: bool = True
    max_restarts: int = 3

    file_name = "pipeline.yaml"

    def file(self, job):
        job.check_place("sky", bucket=self.bucket)
        mount = {"source": self.bucket, "mode": "MOUNT"}
        # The dependencies bring JAX for CPUs, which would leave the accelerators idle.
        jax = "jax[tpu]" if self.accelerators.startswith("tpu") else "jax[cuda12]"
        tasks = []
        for stage, points in job.stages.items():
            command = shlex.join([*job.command, f"--stage={stage}"])
            task = {
                "name": f"{job.name}-{stage}",
                "num_nodes": min(self.nodes, points),
                "workdir": ".",
                "resources": {
                    "accelerators": self.accelerators,
                    "use_spot": self.spot,
                    "job_recovery": {
                        "max_restarts_on_errors": self.max_restarts,
                        "recover_on_exit_codes": [PREEMPTED],
                    },
                },
                "file_mounts": {str(job.workdir): mount} if self.bucket else {},
                "setup": f'pip install "{jax}" -e ".[experiments{"" if self.bucket else ",gcs"}]"',
                "run": _RUN.format(last=points - 1, command=command),
            }
            tasks.append(task)
        return yaml.safe_dump_all([{"name": job.name}, *tasks], sort_keys=False)

    def command(self, job, path):
        return ["sky", "jobs", "launch", "-y", "-d", "-n", job.name, path]
