"""Submits an experiment to Kubernetes as one JobSet, whose groups of jobs are the stages."""

import dataclasses
import itertools
import math
from typing import Any

import yaml

from experiments.running.submit import Backend, Job

# All pods of a job go to one node pool, which is one TPU slice. Without this, points that start at
# the same time may each get hosts of several slices, whose chips are not connected.
_ON_ONE_SLICE = {"alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"}
_GRACE = 120  # seconds that a pod has for its last checkpoint
_PORT = 1234  # of the first process of a point
# Where a pod finds the number of its point, and of its host.
_POINT = "metadata.labels['jobset.sigs.k8s.io/job-index']"
_HOST = "metadata.annotations['batch.kubernetes.io/job-completion-index']"


@dataclasses.dataclass(frozen=True)
class JobSet(Backend):
    """Creates a JobSet with a job for each point, and a pod on each host of the point.

    A pod that ends with status 1 or 2 ends the JobSet. After any other end, such as a preemption,
    an eviction or a kill, all hosts of its point start again from the last checkpoint.

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
        return yaml.safe_dump(self.manifest(job), sort_keys=False)

    def command(self, job, path):
        # "apply" would leave a JobSet that has ended as it is, and start nothing.
        return ["kubectl", "create", "-f", path]

    def manifest(self, job: Job) -> dict[str, Any]:
        """Returns the JobSet."""
        job.check_place("jobset", claim=self.claim)
        self._check_topology()
        stages = [self._stage(job, stage, points) for stage, points in job.stages.items()]
        for before, stage in itertools.pairwise(stages):
            stage["dependsOn"] = [{"name": before["name"], "status": "Complete"}]
        fatal = {"action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}
        rules = [{"name": "fatal"} | fatal, {"name": "lost", "action": "RestartJob"}]
        return {
            "apiVersion": "jobset.x-k8s.io/v1alpha2",
            "kind": "JobSet",
            "metadata": {
                "name": job.name,
                "namespace": self.namespace,
                "labels": {"kueue.x-k8s.io/queue-name": self.queue} if self.queue else {},
                "annotations": _ON_ONE_SLICE if self.topology and self.hosts > 1 else {},
            },
            "spec": {
                "failurePolicy": {"maxRestarts": self.max_restarts, "rules": rules},
                "replicatedJobs": stages,
            },
        }

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

    def _stage(self, job, stage, points) -> dict[str, Any]:
        failed = {"operator": "In", "values": [1, 2]}
        hosts = {
            "parallelism": self.hosts,
            "completions": self.hosts,
            "completionMode": "Indexed",
            "backoffLimit": 0,
            "podFailurePolicy": {"rules": [{"action": "FailJob", "onExitCodes": failed}]},
            "template": {"spec": self._pod(job, stage)},
        }
        return {"name": f"stage{stage}", "replicas": points, "template": {"spec": hosts}}

    def _pod(self, job, stage) -> dict[str, Any]:
        is_tpu = bool(self.topology)
        chips = {"google.com/tpu" if is_tpu else "nvidia.com/gpu": self.chips}
        kind = "gke-tpu-accelerator" if is_tpu else "gke-accelerator"
        selector = {f"cloud.google.com/{kind}": self.accelerator}
        if is_tpu:
            selector["cloud.google.com/gke-tpu-topology"] = self.topology
        variables = {"POINT": _POINT, "HOST": _HOST}
        container = {
            "name": "point",
            "image": self.image,
            "command": self._command(job, stage),
            "env": [
                {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}
                for name, path in variables.items()
            ],
            "resources": {"limits": chips},
        }
        pod = {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": _GRACE,
            "nodeSelector": selector,
            "containers": [container],
        }
        if self.claim:
            volume = {"claimName": self.claim}
            pod["volumes"] = [{"name": "workdir", "persistentVolumeClaim": volume}]
            container["volumeMounts"] = [{"name": "workdir", "mountPath": str(job.workdir)}]
        return pod

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
