"""Says what a run is made with: versions of packages, the device, the revision and the source."""

import functools
import hashlib
import importlib.metadata
import platform
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "chex", "numpy")


def environment() -> dict[str, Any]:
    """Returns versions, device and revision, which reports quote with their figures."""
    device = jax.devices()[0]
    return {
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES}
        | {"python": platform.python_version()},
        "device": f"{jax.device_count()} x {device.device_kind} ({device.platform})",
        "git": _git_revision(),
        "source": hashlib.sha256(repr(source_digests()).encode()).hexdigest()[:16],
    }


@functools.cache
def source_digests() -> dict[str, str]:
    """Returns the SHA-256 of each file of source, committed or not, by its path in the checkout."""
    root = Path(__file__).resolve().parents[2]
    patterns = "launch.py", "posenc_jax/**/*.py", "experiments/**/*.py", "configs/**/*.py"
    paths = sorted(path for pattern in patterns for path in root.glob(pattern))
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths
    }


def environment_of(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the ``environment`` in the ``run.json`` of several runs, with each value once.

    Without any run, the result is the environment of this program.
    """
    if not runs:
        return environment()
    versions = {
        name: each_once(run["versions"].get(name, "none") for run in runs)
        for name in dict.fromkeys(name for run in runs for name in run["versions"])
    }
    told = {field: each_once(run[field] for run in runs) for field in ("device", "git")}
    return {"versions": versions} | told


def each_once(values: Iterable[str]) -> str:
    """Returns the values separated by commas, each once."""
    return ", ".join(dict.fromkeys(values))


def _git_revision() -> str:
    root = Path(__file__).parent
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
