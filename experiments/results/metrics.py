"""Writes the numbers of a run, and sends them to TensorBoard and Weights & Biases."""

import hashlib
import json
from pathlib import Path
from typing import Any

import jax

from experiments import imported
from experiments.results import bucket
from experiments.results.record import agreed, appended, as_lines, read_lines, write_files


class Metrics:
    """Writes ``metrics.jsonl``: one JSON object a line, in the order of steps.

    Lines of steps after ``resume_step`` are dropped on opening: their work was not saved and is
    about to be done again. With ``tensorboard`` the same numbers also go into event files next to
    the file, with ``wandb`` to that project. ``last`` is the newest line, or empty.
    """

    def __init__(self, path: Path, resume_step: int, tensorboard: bool = False, wandb: str = ""):
        if jax.process_index() > 0:
            tensorboard, wandb = False, ""
        events = str(path.parent / "tensorboard")
        self._events = _sink("tensorboardX").SummaryWriter(events) if tensorboard else None
        self._project = _wandb_run(wandb, path.parent) if wandb else None
        saved = [line for line in read_steps(path) if line["step"] <= resume_step]
        write_files(path.parent, {path.name: as_lines(saved)})
        self.last: dict[str, float] = saved[-1] if saved else {}
        self._file = appended(path)

    def write(self, *, step: int, **values: float) -> None:
        """Writes one line."""
        self.last = {"step": step} | values
        self._file.write(json.dumps(self.last) + "\n")
        if self._events:
            for name, value in values.items():
                self._events.add_scalar(name, value, step)
        if self._project:
            self._project.log(values, step=step)

    def flush(self) -> None:
        """Writes all lines to disk or to the bucket, if that is not done yet."""
        self._file.flush()

    def close(self) -> None:
        """Closes the files."""
        self._file.close()
        if self._events:
            self._events.close()
        if self._project:
            self._project.finish()


def read_steps(path: Path) -> list[dict[str, Any]]:
    """Returns the lines of a ``metrics.jsonl``, without damaged lines and lines without a step."""
    lines = (line for line in read_lines(path) if isinstance(line, dict))
    return [line for line in lines if isinstance(line.get("step"), int)]


def check_sinks(tensorboard: bool, wandb: str) -> None:
    """Checks that the packages that ``Metrics`` is to write with are installed."""
    packages = ["tensorboardX"] * tensorboard + ["wandb"] * bool(wandb)
    agreed(lambda: [_sink(package) for package in packages] and None)


def _sink(package: str):
    """Imports a package, which comes with an extra of almost the same name."""
    extra = package.removesuffix("X")
    return imported(package, extra, f"train.{extra}")


def _wandb_run(project: str, folder: Path):
    # The same folder is the same run, however often it is started.
    name = "/".join(folder.parts[-2:])
    identity = hashlib.sha256(str(bucket.absolute(folder)).encode()).hexdigest()[:16]
    names = {"name": name, "id": identity, "resume": "allow"}
    # Seeds that are trained together have a run each; by default wandb would return the first.
    return _sink("wandb").init(project=project, reinit="create_new", **names)
