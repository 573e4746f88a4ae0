"""Submits points to Kubernetes: as JobSets (GKE), or through xpk."""

import dataclasses
import math
from typing import Any

import yaml

from experiments.job_processes import PREEMPTED
from experiments.results.bucket import is_in_bucket
from experiments.running.submit import PORT, Backend, Job, peers

# All pods of a JobSet's job go to one node pool, which is one TPU slice. Without this, points that
# start at the same time may each get hosts of several slices, whose chips are not connected.
_ON_ONE_SLICE = {"alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"}
_GRACE = 120  # seconds that a pod has for its last checkpoint


@dataclasses.dataclass(frozen=True)
class GKE(Backend):
    """Creates one JobSet for each point, with a pod on each of its hosts.

    If a pod ends with status 1 or 2, its JobSet has failed for good. If a pod ends in another way,
    because it was preempted, evicted or killed, all hosts of the point restart and continue from
    the last checkpoint.

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

    file_name = "jobsets.yaml"

    def file(self, job):
        return yaml.safe_dump_all(self.manifests(job), sort_keys=False)

    def commands(self, job, path):
        # "apply" would leave a JobSet that has ended as it is, and start nothing.
        return [["kubectl", "create", "-f", path]]

    def manifests(self, job: Job) -> list[dict[str, Any]]:
        """Returns the JobSet of each point."""
        if bool(self.claim) == is_in_bucket(job.workdir):
            raise ValueError(
                f"--backend=gke with --workdir={job.workdir} and --resource=claim={self.claim}: "
                "give a folder and the claim that is mounted there, or gs://BUCKET/FOLDER and no "
                "claim"
            )
        job.check_absolute(f"--resource=claim={self.claim} is mounted there")
        self._check_topology()
        return [self._manifest(job, point, name) for point, name in enumerate(job.names)]

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

    def _manifest(self, job, point, name):
        labels = {"kueue.x-k8s.io/queue-name": self.queue} if self.queue else {}
        failed = {"operator": "In", "values": [1, 2]}
        hosts = {
            "parallelism": self.hosts,
            "completions": self.hosts,
            "completionMode": "Indexed",
            "backoffLimit": 0,
            "podFailurePolicy": {"rules": [{"action": "FailJob", "onExitCodes": failed}]},
            "template": {"spec": self._pod(job, name, point)},
        }
        return {
            "apiVersion": "jobset.x-k8s.io/v1alpha2",
            "kind": "JobSet",
            "metadata": {
                "name": name,
                "namespace": self.namespace,
                "labels": labels,
                "annotations": _ON_ONE_SLICE if self.topology and self.hosts > 1 else {},
            },
            "spec": {
                "failurePolicy": {
                    "maxRestarts": self.max_restarts,
                    "rules": [
                        {
                            "name": "failed_for_good",
                            "action": "FailJobSet",
                            "onJobFailureReasons": ["PodFailurePolicy"],
                        }
                    ],
                },
                "replicatedJobs": [{"name": "host", "replicas": 1, "template": {"spec": hosts}}],
            },
        }

    def _pod(self, job, name, point):
        is_tpu = bool(self.topology)
        chips = {"google.com/tpu" if is_tpu else "nvidia.com/gpu": self.chips}
        kind = "gke-tpu-accelerator" if is_tpu else "gke-accelerator"
        selector = {f"cloud.google.com/{kind}": self.accelerator}
        if is_tpu:
            selector["cloud.google.com/gke-tpu-topology"] = self.topology
        # The host name that JobSet gives to the first pod of a set.
        first = f"{name}-host-0-0.{name}:{PORT}"
        # Kubernetes replaces $(HOST) by the value of the variable, and "$$" by "$".
        number = {"fieldPath": "metadata.annotations['batch.kubernetes.io/job-completion-index']"}
        container = {
            "name": "point",
            "image": self.image,
            "command": [
                *(word.replace("$", "$$") for word in job.command),
                f"--task_id={point}",
                *(peers(first, self.hosts, "$(HOST)") if self.hosts > 1 else []),
            ],
            "env": [{"name": "HOST", "valueFrom": {"fieldRef": number}}],
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


@dataclasses.dataclass(frozen=True)
class XPK(Backend):
    """Creates one xpk workload for each point.

    Attributes:
      cluster: the cluster's name.
      tpu_type: the slice, such as "v5litepod-16".
      docker_image: the container image, with the repository as its working folder.
      slices: slices of a point.
      max_restarts: how often a point may start again.
      priority: the priority of the workloads.
    """

    cluster: str
    tpu_type: str
    docker_image: str
    slices: int = 1
    max_restarts: int = 20
    priority: str = "medium"

    def commands(self, job, path):
        job.check_absolute("results must be on a disk that outlives the pods, or in a bucket")
        shared = [
            *("xpk", "workload", "create", f"--cluster={self.cluster}"),
            *(f"--tpu-type={self.tpu_type}", f"--num-slices={self.slices}"),
            *(f"--docker-image={self.docker_image}", f"--priority={self.priority}"),
            *(f"--max-restarts={self.max_restarts}", f"--restart-on-exit-codes={PREEMPTED}"),
            f"--termination-grace-period-seconds={_GRACE}",
        ]
        return [
            [*shared, f"--workload={name}", f"--command={job.of_point(point)}"]
            for point, name in enumerate(job.names)
        ]
