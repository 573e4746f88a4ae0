"""What a run leaves behind: ``run.json``, ``metrics.jsonl``, and files that are whole or absent."""

import importlib.metadata
import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import jax

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def write_json(path: Path, value: Any) -> None:
    """Writes ``value`` so that a kill leaves the old file or the new one, never half of one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(json.dumps(value, indent=1, allow_nan=True) + "\n")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_json(path: Path) -> Any:
    """The value in ``path``, or None where there is no such file."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return None


def environment() -> dict[str, Any]:
    """Versions, device and revision: what a figure must be quoted with."""
    device = jax.devices()[0]
    return {
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES}
        | {"python": platform.python_version()},
        "device": f"{jax.device_count()} x {device.device_kind} ({device.platform})",
        "git": _git_revision(),
    }


def _git_revision() -> str:
    root = Path(__file__).parent
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def open_run(folder: Path, config: dict[str, Any]) -> None:
    """Claims ``folder`` for a run of ``config``, or raises if it holds a run of another.

    Raises:
      ValueError: says which fields differ.
    """
    folder.mkdir(parents=True, exist_ok=True)
    previous = read_json(folder / "run.json")
    config = json.loads(json.dumps(config))  # tuples become lists, as they will be read back
    if previous is None:
        write_json(folder / "run.json", {"config": config} | environment())
        return
    changes = differences(previous["config"], config)
    if changes:
        raise ValueError(
            f"{folder} holds a run with another config: {'; '.join(changes)}. "
            "Give the old values, or another --workdir"
        )


def differences(old: Any, new: Any, name: str = "") -> list[str]:
    """One sentence for every field in which two nested dicts differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted(old.keys() | new.keys())
        below = (differences(old.get(k), new.get(k), f"{name}.{k}" if name else k) for k in keys)
        return [sentence for sentences in below for sentence in sentences]
    return [] if old == new else [f"{name} was {old!r} and is now {new!r}"]


class Metrics:
    """``metrics.jsonl``: one JSON object a line, in the order of steps.

    Lines of steps at or after ``resume_step`` are dropped on opening: they belong to work that
    was not saved and is about to be done again.
    """

    def __init__(self, path: Path, resume_step: int):
        lines = path.read_text().splitlines() if path.exists() else []
        kept = [line for line in lines if (step := _step_of(line)) and step <= resume_step]
        temporary = path.with_name(f".{path.name}")
        temporary.write_text("".join(line + "\n" for line in kept))
        os.replace(temporary, path)
        self._file = path.open("a", buffering=1)

    def write(self, **values) -> None:
        self._file.write(json.dumps(values) + "\n")

    def close(self) -> None:
        self._file.close()


def _step_of(line: str) -> int | None:
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError):
        return None  # the half line a kill left behind
