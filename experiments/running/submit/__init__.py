"""Hands the points of an experiment to a queue: ``launch.py --backend=slurm --submit``.

Every backend is a dataclass whose fields are its settings, ``--resource=NAME=VALUE``. A backend
prints what it would submit, and submits it. Each point becomes a job of its own that runs
``launch.py`` with ``--task_id``; a job that ends with status 75 was preempted, and is run again.
"""

import dataclasses
import datetime
import hashlib
import pkgutil
import re
import shlex
import subprocess
import sys
import tempfile
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags
from rich.console import Console

from experiments.results.bucket import absolute, is_in_bucket
from experiments.results.locks import claimed
from experiments.results.record import read_json, write_json
from experiments.settings import one_of

# "module:class" by name. A module is imported when it is needed.
BACKENDS = {
    "local": "experiments.running.submit.local:Local",
    "slurm": "experiments.running.submit.slurm:Slurm",
    "gke": "experiments.running.submit.kubernetes:GKE",
    "xpk": "experiments.running.submit.kubernetes:XPK",
    "tpu_vm": "experiments.running.submit.cloud:TPUVM",
    "sky": "experiments.running.submit.cloud:Sky",
}
_PARSERS: dict[type, Any] = {
    str: flags.ArgumentParser(),
    bool: flags.BooleanParser(),
    int: flags.IntegerParser(lower_bound=1),
}
# The port of the first process of a job on machines of its own.
PORT = 1234
_RECORD = "submitted.json"
# xpk takes names of less than 40 letters, and a point's number follows this one.
_LONGEST = 34


@dataclasses.dataclass(frozen=True)
class Job:
    """Describes how many ``points`` to run, by a command from the folder of the repository.

    Every job must see the ``workdir``; ``number`` counts the submissions of it, from 1.
    """

    command: tuple[str, ...]
    points: int
    workdir: Path
    number: int = 1

    @property
    def name(self) -> str:
        """Returns a name that every queue accepts: a few lower-case letters, digits and dashes.

        A queue may know the jobs of another workdir whose last folder has the same name, and those
        of an earlier submission. So the name has a digest of the workdir, and a number from 2 on.
        """
        words = re.sub(r"[^a-z0-9]+", "-", self.workdir.name.lower()).strip("-")
        last = f"-{hashlib.sha256(str(absolute(self.workdir)).encode()).hexdigest()[:5]}"
        last += f"-r{self.number}" if self.number > 1 else ""
        return f"posenc-{words}"[: _LONGEST - len(last)].rstrip("-") + last

    @property
    def names(self) -> list[str]:
        """Returns a name for each point."""
        return [f"{self.name}-{point}" for point in range(self.points)]

    @property
    def here(self) -> tuple[str, ...]:
        """Returns the command of all points under this program's Python."""
        return (sys.executable, *self.command[1:])

    def check_absolute(self, why: str) -> None:
        """Raises a ValueError, which says why, for a relative workdir.

        Another machine would take it from its own folder, on a disk that is lost with the machine.
        """
        if not is_in_bucket(self.workdir) and not self.workdir.is_absolute():
            raise ValueError(
                f"--workdir={self.workdir} must be absolute, such as /mnt/{self.workdir}: {why}"
            )

    def all_points(self, *more: str) -> str:
        """Returns the command of all points, quoted for a shell."""
        return " ".join([shlex.join(self.command), *more])

    def of_point(self, point: int | str, *more: str) -> str:
        """Returns the command of one point, quoted for a shell.

        A point that is no number is a variable of the shell or the queue, and is not quoted.
        """
        return self.all_points(f"--task_id={point}", *more)


class Backend:
    """Submits a job to one kind of queue: by ``commands``, or a ``text`` and ``submit`` of its own.

    The commands may read one file, which is then called ``file_name``. A ValueError says that jobs
    would write their results to disks of their own.
    """

    file_name = ""

    def file(self, job: Job) -> str:
        """Returns the content of the file that the commands read."""
        return ""

    def commands(self, job: Job, path: str) -> list[list[str]]:
        """Returns the commands; ``path`` is where the file lies."""
        raise NotImplementedError

    def names(self, job: Job) -> list[str]:
        """Returns the names of what the commands submit, by default one for each point."""
        return job.names

    def text(self, job: Job) -> str:
        """Returns all that would be submitted, for people to read."""
        file = f"{self.file(job).rstrip()}\n\n" if self.file_name else ""
        return file + "\n".join(map(shlex.join, self.commands(job, self.file_name)))

    def submit(self, job: Job) -> list[str]:
        """Submits the job, and returns the names of what was submitted."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / self.file_name
            if self.file_name:
                path.write_text(self.file(job))
            for command in self.commands(job, str(path)):
                _run(command)
        return self.names(job)


def peers(first: str, count: int | str, number: int | str) -> list[str]:
    """Returns the flags of process ``number`` of a job whose first one is at ``HOST:PORT``."""
    return [f"--coordinator={first}", f"--num_processes={count}", f"--process_id={number}"]


def make_backend(name: str, settings: Sequence[str]) -> Backend:
    """Returns a backend with its settings, each ``NAME=VALUE``; raises a ValueError for others."""
    kind = pkgutil.resolve_name(BACKENDS[one_of("--backend", name, BACKENDS)])
    types, values = typing.get_type_hints(kind), dict[str, Any]()
    for setting in settings:
        key, equals, value = setting.partition("=")
        if key not in types or not equals:
            known = ", ".join(f"{field.name}=" for field in dataclasses.fields(kind))
            raise ValueError(f"--resource={setting} must be one of {known} for --backend={name}")
        try:
            values[key] = _PARSERS[types[key]].parse(value)
        except ValueError as error:
            raise ValueError(f"--resource={setting}: {error}") from None
    fields = dataclasses.fields(kind)
    needed = [f.name for f in fields if f.default is dataclasses.MISSING and f.name not in values]
    if needed:
        missing = " ".join(f"--resource={need}=..." for need in needed)
        raise ValueError(f"--backend={name} needs {missing}")
    return kind(**values)


def hand_over(backend: Backend, job: Job, *, submit: bool, again: bool, console: Console) -> None:
    """Prints what a backend would submit; with ``submit``, submits it and records that.

    Raises a ValueError if the workdir was submitted before, without ``again``, or the queue
    refuses.
    """
    if not submit:
        console.print(backend.text(_numbered(job)[0]), markup=False)
        return
    with claimed(job.workdir):
        job, before = _numbered(job)
        if before and not again:
            raise ValueError(
                f"{job.workdir} was submitted on {before['date']} "
                f"({', '.join(before['jobs']) or 'which did not end well'}); check the queue and "
                "--status, and submit unfinished points with --again"
            )
        console.print(backend.text(job), markup=False)
        date = datetime.datetime.now().isoformat(" ", "seconds")
        record = {"date": date, "command": job.command, "jobs": [], "number": job.number}
        # Recorded first, because a submission that fails may have submitted some jobs.
        write_json(job.workdir / _RECORD, record)
        jobs = backend.submit(job)
        write_json(job.workdir / _RECORD, record | {"jobs": jobs})
    console.print(f"submitted: {', '.join(jobs)}", markup=False)


def _numbered(job: Job) -> tuple[Job, dict[str, Any] | None]:
    """Returns the job with the number of its submission, and the record of the one before it."""
    before = read_json(job.workdir / _RECORD, {"date": str, "jobs": list})
    number = before.get("number", 1) + 1 if before else 1
    return dataclasses.replace(job, number=number), before


def _run(command: list[str]) -> None:
    """Runs a tool of the queue; raises a ValueError if it is not installed, or has failed."""
    try:
        subprocess.run(command, check=True)
    except FileNotFoundError:
        raise ValueError(f"{command[0]} is not installed on this machine") from None
    except subprocess.CalledProcessError as error:
        which, status = shlex.join(command[:3]), error.returncode
        raise ValueError(f"{which} ended with status {status}") from None


def command_without_own_flags(arguments: Sequence[str]) -> tuple[str, ...]:
    """Returns a command line without the flags of ``launch.py`` that say how to submit."""
    submission = flags.FlagValues()
    submission.set_gnu_getopt()  # goes on after a value that stands apart from its flag
    for name in ("submit", "again"):
        flags.DEFINE_bool(name, False, "", flag_values=submission)
    for name in ("backend", "resource"):
        flags.DEFINE_multi_string(name, [], "", flag_values=submission)
    return tuple(submission(["", *arguments], known_only=True)[1:])
