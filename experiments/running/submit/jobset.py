"""Submits an experiment to Kubernetes as one JobSet, whose groups of jobs are the stages."""

import dataclasses
import functools
import json
import math
from pathlib import Path

import jinja2

from experiments.running.submit import Backend

_MANIFEST = Path(__file__).with_name("jobset.yaml")
_PORT = 1234  # of the first process of a point


@dataclasses.dataclass(frozen=True)
class JobSet(Backend):
    """Creates the JobSet in ``jobset.yaml``: a job for each point, and a pod on each host of it.

    Attributes:
      image: the container image, with the repository as its working folder.
      accelerator: the node's label, such as "tpu-v5-lite-podslice" or "nvidia-h100-80gb".
      chips: accelerators of a host.
      topology: the TPU slice, such as "4x4"; none for GPUs.
      hosts: hosts of a point.
      max_restarts: how often a point may start again.
      claim: a PersistentVolumeClaim that is mounted as the workdir; none for a workdir in a bucket.
      namespace: the Kubernetes namespace.
      queue: the LocalQueue of Kueue, if the cluster has one.
    """

    image: str
    accelerator: str
    chips: int = 4
    topology: str = ""
    hosts: int = 1
    max_restarts: int = 20
    claim: str = ""
    namespace: str = "default"
    queue: str = ""

    file_name = "jobset.yaml"

    def file(self, job):
        job.check_place("jobset", claim=self.claim)
        self._check_topology()
        environment = jinja2.Environment(trim_blocks=True, undefined=jinja2.StrictUndefined)
        # A string of JSON is one of YAML too.
        environment.filters["json"] = functools.partial(json.dumps, ensure_ascii=False)
        return environment.from_string(_MANIFEST.read_text()).render(
            settings=self,
            name=job.name,
            stages=job.stages,
            commands={stage: self._command(job, stage) for stage in job.stages},
            workdir=str(job.workdir),
        )

    def command(self, job, path):
        # "apply" would leave a JobSet that has ended as it is, and start nothing.
        return ["kubectl", "create", "-f", path]

    def _check_topology(self):
        """Raises a ValueError unless the hosts have the chips of the slice together.

        JAX would wait on some hosts of a slice for the others.
        """
        if self.accelerator.startswith("tpu") != bool(self.topology):
            raise ValueError(
                f"--resource=accelerator={self.accelerator} and --resource=topology="
                f"{self.topology}: TPUs (tpu-...) need a topology such as 4x4, and GPUs have none"
            )
        if not self.topology:
            return
        sizes, chips = self.topology.split("x"), self.hosts * self.chips
        if not all(map(str.isdecimal, sizes)) or math.prod(map(int, sizes)) != chips:
            raise ValueError(
                f"--resource=topology={self.topology} must be sizes such as 4x4 whose product is "
                f"the chips of a point, and --resource=hosts={self.hosts} with "
                f"--resource=chips={self.chips} have {chips}"
            )

    def _command(self, job, stage) -> list[str]:
        # Kubernetes replaces $(HOST) by the value of the variable, and "$$" by "$".
        words = [word.replace("$", "$$") for word in job.command]
        command = dataclasses.replace(job, command=tuple(words)).of_point(stage, "$(POINT)")
        if self.hosts > 1:
            # The host name that JobSet gives to the first pod of a point.
            first = f"{job.name}-stage{stage}-$(POINT)-0.{job.name}:{_PORT}"
            command += [f"--coordinator={first}", f"--num_processes={self.hosts}"]
            command += ["--process_id=$(HOST)"]
        return command
