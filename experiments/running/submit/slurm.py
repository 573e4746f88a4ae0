"""Submits points to SLURM through submitit: an array for each stage."""

import dataclasses
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from experiments import imported
from experiments.preemption import PREEMPTED
from experiments.results.bucket import is_in_bucket
from experiments.running.submit import Backend

# How often a point may reach the time limit and continue in another job.
_MOST_LIMITS = 100


@dataclasses.dataclass(frozen=True)
class Slurm(Backend):
    """Submits an array for each stage, with a job for each point and a process on each node of it.

    Attributes:
      partition: the partition, or the cluster's default.
      account: the account, or the user's default.
      minutes: the time limit of a job.
      nodes: nodes of a job.
      gpus_per_node: GPUs of a node; the default asks for none.
      cpus_per_task: cores of a node.
      mem_gb: memory of a node; the default is the cluster's.
      at_once: how many jobs of a stage run at the same time.
    """

    partition: str = ""
    account: str = ""
    minutes: int = 24 * 60
    nodes: int = 1
    gpus_per_node: int = 0
    cpus_per_task: int = 8
    mem_gb: int = 0
    at_once: int = 256

    def text(self, job):
        """Returns what submitit is told of each array, and what each job runs."""
        texts, before = [], ""
        for stage, points in job.stages.items():
            told = {"folder": str(self._logs(job)), "jobs": points} | self.parameters(job, before)
            runs = shlex.join(job.of_point(stage, "N"))
            texts.append(
                f"{yaml.safe_dump(told, sort_keys=False)}# Job N of the array runs\n# {runs}"
            )
            before = f"ARRAY_OF_STAGE_{stage}"
        return "\n\n".join(texts)

    def submit(self, job):
        submitit = imported("submitit", "slurm", "--backend=slurm")
        try:
            executor = submitit.SlurmExecutor(self._logs(job), max_num_timeout=_MOST_LIMITS)
        except RuntimeError as error:
            raise ValueError(f"SLURM is not on this machine ({error})") from None
        command = (sys.executable, *job.command[1:])
        here, arrays = dataclasses.replace(job, command=command), list[str]()
        for stage, points in job.stages.items():
            executor.update_parameters(**self.parameters(job, *arrays[-1:]))
            with executor.batch():
                jobs = [
                    executor.submit(Resumable(here.of_point(stage, point)))
                    for point in range(points)
                ]
            arrays.append(jobs[0].job_id.partition("_")[0])
        return ", ".join(arrays)

    def _logs(self, job) -> Path:
        if is_in_bucket(job.workdir):
            raise ValueError(
                f"--backend=slurm keeps submitit's files in the workdir, and {job.workdir} is in a "
                "bucket; give a folder that all nodes see"
            )
        return job.workdir / "slurm"

    def parameters(self, job, before: str = "") -> dict[str, Any]:
        """Returns submitit's parameters of an array that begins after the array ``before``."""
        given = {
            "job_name": job.name,
            "time": self.minutes,
            "nodes": self.nodes,
            "ntasks_per_node": 1,
            "cpus_per_task": self.cpus_per_task,
            # From SLURM 22.05 on, srun does not take this number from the script.
            "srun_args": [f"--cpus-per-task={self.cpus_per_task}"],
            "array_parallelism": self.at_once,
            # Time for a checkpoint, before the time limit and when the queue preempts.
            "signal_delay_s": 120,
            "dependency": f"afterok:{before}" if before else None,
            # Some clusters requeue only jobs that allow it.
            "additional_parameters": {"requeue": True},
        }
        optional = {
            "partition": self.partition,
            "account": self.account,
            "gpus_per_node": self.gpus_per_node,
            "mem": f"{self.mem_gb}GB" if self.mem_gb else "",
        }
        return given | {key: value for key, value in optional.items() if value}


class Resumable:
    """Runs one point, and passes it on to another job if the queue ends this one."""

    def __init__(self, command: list[str]):
        self.command = command
        self._process: subprocess.Popen | None = None

    def __call__(self) -> int:
        """Runs the command to its end; raises a RuntimeError if it has failed."""
        # SLURM sends submitit's signal to every process. The point ignores it, and ends by the
        # SIGTERM of ``checkpoint``.
        self._process = subprocess.Popen(
            self.command, preexec_fn=lambda: signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        )
        status = self._process.wait()
        if status:
            raise RuntimeError(f"{shlex.join(self.command)} ended with status {status}")
        return status

    def checkpoint(self):
        """Saves the point, and returns the job that continues it; submitit calls this."""
        if self._process is not None:
            self._process.terminate()
            # Not ``wait``: this runs in a signal handler within ``__call__``, which holds its lock.
            end = os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
            # SIGTERM ends a process that does not listen to it yet, and so has nothing to save.
            is_deaf = end and (end.si_code, end.si_status) == (os.CLD_KILLED, signal.SIGTERM)
            if end is None or not (is_deaf or end.si_status in (0, PREEMPTED)):
                raise RuntimeError(f"asked to stop, the point did not end well: {end}")
        submitit = imported("submitit", "slurm", "--backend=slurm")
        return submitit.helpers.DelayedSubmission(Resumable(self.command))
