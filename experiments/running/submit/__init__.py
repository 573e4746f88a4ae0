"""Hands an experiment to a queue, stage by stage: ``launch.py --backend=slurm --submit``.

Every backend is a dataclass whose fields are its settings, ``--resource=NAME=VALUE``. A backend
prints what it would submit, and submits it. Each point is a job of its own, which runs
``launch.py`` with ``--stage`` and ``--task_id``, and the queue begins a stage when the one before
has ended well. A job that ends with status 75 was preempted, and is run again.
"""

import dataclasses
import hashlib
import pkgutil
import re
import shlex
import subprocess
import tempfile
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags
from rich.console import Console

from experiments.results.bucket import absolute, is_in_bucket
from experiments.settings import one_of

# "module:class" by name. A module is imported when it is needed.
BACKENDS = {
    "slurm": "experiments.running.submit.slurm:Slurm",
    "jobset": "experiments.running.submit.jobset:JobSet",
    "sky": "experiments.running.submit.sky:Sky",
}
_PARSERS: dict[type, Any] = {
    str: flags.ArgumentParser(),
    bool: flags.BooleanParser(),
    int: flags.IntegerParser(lower_bound=1),
}
_LONGEST = 34  # of a name, to which a queue adds numbers


@dataclasses.dataclass(frozen=True)
class Job:
    """Describes what is run, by a ``command`` from the folder of the repository.

    ``stages`` has the number of points of each stage, by the number of the stage; every machine
    must see the ``workdir``.
    """

    command: tuple[str, ...]
    stages: dict[int, int]
    workdir: Path

    @property
    def name(self) -> str:
        """Returns a name that every queue accepts: a few lower-case letters, digits and dashes.

        A queue may know the jobs of another workdir whose last folder has the same name, so the
        name has a digest of the workdir.
        """
        words = re.sub(r"[^a-z0-9]+", "-", self.workdir.name.lower()).strip("-")
        last = f"-{hashlib.sha256(str(absolute(self.workdir)).encode()).hexdigest()[:5]}"
        return f"posenc-{words}"[: _LONGEST - len(last)].rstrip("-") + last

    def of_point(self, stage: int, point: int | str) -> list[str]:
        """Returns the command of one point, which may be a variable of the queue."""
        return [*self.command, f"--stage={stage}", f"--task_id={point}"]

    def check_place(self, backend: str, **mounted: str) -> None:
        """Raises a ValueError unless results go to a bucket, or to a folder where one is mounted.

        ``mounted`` is the setting that names what is mounted. Otherwise another machine would write
        to a disk that is lost with it.
        """
        ((setting, value),) = mounted.items()
        is_bucket = is_in_bucket(self.workdir)
        if is_bucket == bool(value) or not (is_bucket or self.workdir.is_absolute()):
            raise ValueError(
                f"--backend={backend} with --workdir={self.workdir} and --resource={setting}="
                f"{value}: give an absolute folder and the {setting} that is mounted there, or "
                f"gs://BUCKET/FOLDER and no {setting}"
            )


class Backend:
    """Submits a job to one kind of queue, by default by a command that reads a file.

    A ValueError says that a setting is missing, or that results would be lost.
    """

    file_name = ""

    def file(self, job: Job) -> str:
        """Returns the content of the file that the command reads."""
        raise NotImplementedError

    def command(self, job: Job, path: str) -> list[str]:
        """Returns the command; ``path`` is where the file lies."""
        raise NotImplementedError

    def text(self, job: Job) -> str:
        """Returns all that would be submitted, for people to read."""
        return f"{self.file(job).rstrip()}\n\n{shlex.join(self.command(job, self.file_name))}"

    def submit(self, job: Job) -> str:
        """Submits the job, and returns the name of what was submitted."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / self.file_name
            path.write_text(self.file(job))
            _run(self.command(job, str(path)))
        return job.name


def make_backend(name: str, settings: Sequence[str]) -> Backend:
    """Returns a backend with its settings, each ``NAME=VALUE``; raises a ValueError for others."""
    kind = pkgutil.resolve_name(BACKENDS[one_of("--backend", name, BACKENDS)])
    types, values = typing.get_type_hints(kind), dict[str, Any]()
    fields = dataclasses.fields(kind)
    for setting in settings:
        key, equals, value = setting.partition("=")
        if key not in types or not equals or not value.isprintable():
            known = ", ".join(f"{field.name}=" for field in fields)
            raise ValueError(f"--resource={setting!r} must be one of {known} for --backend={name}")
        try:
            values[key] = _PARSERS[types[key]].parse(value)
        except ValueError as error:
            raise ValueError(f"--resource={setting}: {error}") from None
    needed = [f.name for f in fields if f.default is dataclasses.MISSING and f.name not in values]
    if needed:
        missing = " ".join(f"--resource={need}=..." for need in needed)
        raise ValueError(f"--backend={name} needs {missing}")
    return kind(**values)


def hand_over(backend: Backend, job: Job, submit: bool, console: Console) -> None:
    """Prints what a backend would submit; with ``submit``, submits it.

    Raises a ValueError if the queue refuses, or a part of the command has more than one line.
    """
    for word in job.command:
        if not word.isprintable():
            raise ValueError(f"{word!r} has more than one line, and a queue reads it line by line")
    console.print(backend.text(job))
    if submit:
        console.print(f"submitted: {backend.submit(job)}")


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
    flags.DEFINE_bool("submit", False, "", flag_values=submission)
    for name in ("backend", "resource", "stage"):
        flags.DEFINE_multi_string(name, [], "", flag_values=submission)
    return tuple(submission(["", *arguments], known_only=True)[1:])
