"""Runs all points on this machine, as one process or several."""

import dataclasses
import functools
import signal
import subprocess

from experiments.job_processes import PREEMPTED, free_port, run_all
from experiments.preemption import PreemptedError
from experiments.running.submit import Backend, peers


@dataclasses.dataclass(frozen=True)
class Local(Backend):
    """Runs the command here, in ``processes`` with rows of their own, and waits for its end."""

    processes: int = 1

    def text(self, job):
        return "\n".join(job.all_points(*flags) for flags in self._flags(port="PORT"))

    def submit(self, job):
        """Runs all processes, and returns their process ids once all have ended with status 0.

        Raises:
          PreemptedError: the processes were asked to stop, or lost one of them, and have saved.
          ValueError: a process failed; the others may have ended as if they were asked to stop.
        """
        commands = [[*job.here, *flags] for flags in self._flags(free_port())]
        starts = [functools.partial(subprocess.Popen, command) for command in commands]
        ended = {process.pid: process.returncode for process in run_all(starts)[0]}
        # SIGTERM may come before a process listens.
        failed = [pid for pid in ended if ended[pid] not in (0, PREEMPTED, -signal.SIGTERM)]
        if failed:
            raise ValueError(
                f"process {failed[0]} ended with status {ended[failed[0]]}, and has said why; fix "
                "that, and run again with --again"
            )
        if any(ended.values()):
            raise PreemptedError("stopped, and everything is saved: run again with --again")
        return [str(pid) for pid in ended]

    def _flags(self, port) -> list[list[str]]:
        if self.processes == 1:
            return [[]]
        first, count = f"127.0.0.1:{port}", self.processes
        return [peers(first, count, number) for number in range(count)]
