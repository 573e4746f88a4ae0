"""Writes the files of a run, such as ``run.json`` and ``metrics.jsonl``, whole or not at all.

Only the first process of a job reads and writes files; it tells the others what it has read.
"""

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from experiments.results import bucket
from experiments.results.environment import environment
from posenc_jax import files

_MOST_OF_LINES = 2**32  # bytes of a file to which a run adds lines
# The fields that ``run.json`` must have, see ``environment``.
_RUN = {"config": dict, "versions": dict, "device": str, "git": str}


class RefusedError(ValueError):
    """Is raised identically on every process, so that none waits in a collective."""


class OtherConfigError(RefusedError):
    """Says that a folder holds a run of another config, which is left unchanged."""


def agreed(compute: Callable[[], Any]) -> Any:
    """Returns the result of ``compute`` in the first process, as JSON, to every process of the job.

    All processes must call this function, in the same order, and all raise the ValueError (as a
    RefusedError, if there are several) or the OSError of the first one.
    """
    if jax.process_count() == 1:
        return compute()
    outcome: dict[str, Any] = {}
    if jax.process_index() == 0:
        try:
            outcome = {"value": compute()}
        except (ValueError, OSError) as error:
            outcome = {"error": str(error), "is_os": isinstance(error, OSError)}
    told = json.loads(_of_first(json.dumps(outcome).encode()))
    if "error" in told:
        raise (OSError if told["is_os"] else RefusedError)(told["error"])
    return told["value"]


def _of_first(message: bytes) -> bytes:
    """Returns the message of the first process, to every process."""
    tell = multihost_utils.broadcast_one_to_all
    size = int(tell(np.int32(len(message))))
    padded = np.frombuffer(message[:size].ljust(size), np.uint8)
    return np.asarray(tell(padded)).astype(np.uint8).tobytes()


def of_all(text: str) -> list[str]:
    """Returns the text of each process, to all processes of the job, which must all call it."""
    if jax.process_count() == 1:
        return [text]
    message = text.encode()
    longest = multihost_utils.process_allgather(np.int32(len(message))).max()
    padded = np.frombuffer(message.ljust(int(longest)), np.uint8)
    return [row.tobytes().decode().rstrip() for row in multihost_utils.process_allgather(padded)]


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns an OSError into one that names the file, because the error of a full disk names none.

    Files are written whole or not at all, and points have folders of their own; so whatever was
    finished before is still there.
    """
    try:
        yield
    except OSError as error:
        raise OSError(
            f"{path} could not be written ({error.strerror or error}): what was finished before is "
            "safe, and once this is mended the same command goes on"
        ) from error


def write_files(folder: Path, files: Mapping[str, str | bytes]) -> None:
    """Writes files by name, so that a kill or a full disk leaves old files or new, never half."""
    contents = {n: f if isinstance(f, bytes) else f.encode() for n, f in files.items()}
    agreed(lambda: _write_files(folder, contents))


def _write_files(folder, files):
    if bucket.is_in_bucket(folder):
        for name, content in files.items():
            bucket.write(folder / name, content)
        return
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    temporary = {name: folder / f".{name}.{os.getpid()}" for name in files}
    try:
        for name, content in files.items():
            with writing(folder / name):
                temporary[name].unlink(missing_ok=True)  # left by a program that was killed
                with temporary[name].open("xb") as file:  # a link of that name is not followed
                    file.write(content)
        for name, path in temporary.items():
            with writing(folder / name):
                os.replace(path, folder / name)
    finally:
        for path in temporary.values():
            with contextlib.suppress(OSError):  # it was renamed, or never made
                path.unlink()


def check_writable(folder: Path) -> None:
    """Makes a folder, and raises an OSError if no file can be written there."""

    def write():
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()

    if not bucket.is_in_bucket(folder):
        agreed(write)


def write_json(path: Path, value: Any) -> None:
    """Writes ``value`` as :func:`write_files` does."""
    write_files(path.parent, {path.name: json.dumps(value, indent=1) + "\n"})


def read_json(path: Path, fields: Mapping[str, type] | None = None) -> Any:
    """Returns the value in ``path``, or None if there is no such file.

    Raises a ValueError if the file is damaged, or lacks one of ``fields`` of its type.
    """

    def read():
        try:
            value = files.read_json(path)
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise ValueError(f"{error}; restore it from a copy") from None
        values = value if isinstance(value, dict) else {}
        if fields and not all(isinstance(values.get(n), kind) for n, kind in fields.items()):
            raise ValueError(
                f"{path} is damaged: it must be an object with {', '.join(fields)}; restore it "
                "from a copy"
            )
        return value

    return agreed(read)


def read_run(folder: Path) -> dict[str, Any] | None:
    """Returns the ``run.json`` of a folder as ``read_json`` does, or None where there is none."""
    return read_json(folder / "run.json", _RUN)


def read_lines(path: Path) -> list[Any]:
    """Returns the values in a file of one JSON value a line, without lines that are damaged."""

    def read():
        # Bytes, because the paths of buckets decode no damaged text.
        content = files.read_bytes(path, _MOST_OF_LINES) if path.exists() else b""
        return content.decode(errors="replace").splitlines()

    lines = agreed(read)
    return [value for line in lines if (value := parsed(line)) is not None]


def open_run(folder: Path, config: dict[str, Any]) -> dict[str, Any] | None:
    """Writes the ``run.json`` of a run of ``config``, or returns what ``check_run`` does.

    Raises a RefusedError if the folder has checkpoints but no ``run.json``.
    """
    previous = check_run(folder, config)
    if previous is None:
        if agreed((folder / "checkpoints").exists):
            raise RefusedError(
                f"{folder} has checkpoints, but no run.json that says which run made them; put it "
                "back, or delete the folder to train again"
            )
        write_json(folder / "run.json", {"config": config} | environment())
    return previous


def check_run(folder: Path, config: dict[str, Any]) -> dict[str, Any] | None:
    """Returns the ``run.json`` of a folder, or None if there is none.

    Raises an OtherConfigError, which says which fields differ, if it is of another config.
    """
    previous = read_run(folder)
    if previous is None:
        return None
    changes = differences(previous["config"], as_json(config))
    if changes:
        raise OtherConfigError(
            f"{folder} holds a run with another config: {'; '.join(changes)}. "
            "Give the old values, or another --workdir"
        )
    return previous


def as_json(value: Any) -> Any:
    """Returns a value as JSON will give it back, with tuples as lists."""
    return json.loads(json.dumps(value))


def json_digest(value: Any) -> str:
    """Returns the SHA-256 of a value in hex, the same before and after it is written as JSON."""
    return hashlib.sha256(json.dumps(as_json(value), sort_keys=True).encode()).hexdigest()


def differences(old: Any, new: Any, name: str = "") -> list[str]:
    """Returns one sentence for every field in which two nested dicts differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted(old.keys() | new.keys())
        below = (differences(old.get(k), new.get(k), f"{name}.{k}" if name else k) for k in keys)
        return [sentence for sentences in below for sentence in sentences]
    return [] if old == new else [f"{name} was {old!r} and is now {new!r}"]


class Stored:
    """Keeps results by name in a file, each as soon as it is known, one JSON object a line.

    A run that was killed reads them back. A file of another config is replaced.
    """

    def __init__(self, path: Path, config: dict[str, Any]):
        head, whole = {"config": as_json(config)}, read_lines(path)
        if whole[:1] != [head]:
            whole = [head]
        self._values = {record["name"]: record["value"] for record in whole[1:]}
        write_files(path.parent, {path.name: as_lines(whole)})
        self._file = appended(path)

    def get(self, name: str, compute: Callable[[], Any]) -> Any:
        """Returns the result called ``name``, which is computed and kept the first time."""
        if name not in self._values:
            self._values[name] = compute()
            self._file.write(json.dumps({"name": name, "value": self._values[name]}) + "\n")
        return self._values[name]

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def appended(path: Path):
    """Opens a file for new lines at its end, in the first process; others write to nowhere."""
    if jax.process_index() > 0:
        return Path(os.devnull).open("a")
    return bucket.Lines(path) if bucket.is_in_bucket(path) else _Lines(path)


class _Lines:
    """Writes a file line by line, with the methods of ``bucket.Lines``."""

    def __init__(self, path: Path):
        self._path = path
        with writing(path):
            self._file = path.open("a", buffering=1)

    def write(self, line: str) -> None:
        with writing(self._path):
            self._file.write(line)

    def flush(self) -> None:
        """Puts all lines on the disk, where they outlast a power cut."""
        with writing(self._path):
            self._file.flush()
            os.fsync(self._file.fileno())

    def close(self) -> None:
        with writing(self._path):
            self._file.close()


def as_lines(values: Iterable[Any]) -> str:
    """Returns values of JSON, one a line."""
    return "".join(json.dumps(value) + "\n" for value in values)


def parsed(line: str) -> Any:
    """Returns a value of JSON, or None for text that is none, such as half a line."""
    try:
        return files.parsed(line)
    except ValueError:
        return None
