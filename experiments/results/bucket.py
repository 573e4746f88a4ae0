"""Keeps the files of runs in a bucket, where a workdir is ``gs://BUCKET/FOLDER``.

Paths in a bucket come from etils, with the methods of ``pathlib`` that are used here. Orbax
writes the arrays of a checkpoint to a bucket by itself. Three things cannot be done in a bucket. An
object cannot be renamed, but it becomes visible only when it is complete. An object cannot grow, so
a file that is written line by line is rewritten with all its lines. And a folder cannot be locked,
so a program that works on it leaves a mark there, and renews the mark for as long as it runs. The
mark names the program as the lock of a folder does, see ``record.claimed``.
"""

import contextlib
import dataclasses
import datetime
import json
import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import fsspec
from absl import logging
from etils import epath

# Seconds between two renewals of a mark, and seconds after which a mark without renewal is void.
RENEWED, FORGOTTEN = 15.0, 60.0
# A new line is written to the bucket if the last write is more seconds ago than this.
_DELAY = 30.0
UNLOCKED = (
    "{folder} is in a bucket, which has no locks: the mark of a program on its point keeps another "
    "away, but not one that begins within the same second"
)


@dataclasses.dataclass(frozen=True)
class Holder:
    """Names a program that holds a folder.

    Attributes:
      host: the name of its machine.
      process: its process id there.
      since: the local time at which it took the folder.
    """

    host: str = ""
    process: int = 0
    since: str = ""

    @classmethod
    def here(cls) -> "Holder":
        """Returns this program, which takes a folder now."""
        since = datetime.datetime.now().isoformat(" ", "seconds")
        return cls(socket.gethostname(), os.getpid(), since)

    @property
    def program(self) -> tuple[str, int]:
        """Returns what the holders of two folders have in common if they are one program."""
        return self.host, self.process

    def __str__(self):
        if not self.host:
            return "another program"
        return f"process {self.process} on {self.host} since {self.since}"


def in_use(folder: Path, by: Holder) -> ValueError:
    """Returns the error that says who holds a folder that is wanted."""
    return ValueError(f"{folder} is in use by {by}; wait until it is done, or stop it")


def folder_at(name: str) -> Path:
    """Returns the folder of this name, which is on this machine or in a bucket.

    Raises a ValueError if checkpoints cannot be written there, or the bucket cannot be read.
    """
    scheme, is_url, rest = name.partition("://")
    if not is_url:
        return Path(name)
    if scheme != "gs" or not rest.partition("/")[2].strip("/"):
        raise ValueError(
            f"{name} must be a folder of this machine or gs://BUCKET/FOLDER: Orbax writes "
            "checkpoints nowhere else, in particular not to s3://"
        )
    # Other programs write there too, so listings must not be cached.
    fsspec.config.conf.setdefault("gcs", {})["use_listings_cache"] = False
    folder = epath.Path(name.rstrip("/"))
    try:
        with contextlib.suppress(FileNotFoundError):
            list(folder.iterdir())
    except ImportError:
        raise ValueError(f"{name} needs gcsfs: pip install -e '.[gcs]'") from None
    except Exception as error:  # gcsfs and its transport have errors of many kinds
        raise ValueError(f"{name} cannot be read: {type(error).__name__}: {error}") from None
    # Not a class of pathlib, but it has the methods that are used here.
    return cast(Path, folder)


def is_in_bucket(path: Path) -> bool:
    """Returns whether a path is in a bucket."""
    return isinstance(path, epath.Path)


def absolute(path: Path) -> Path:
    """Returns the same path independent of the current folder."""
    return path if is_in_bucket(path) else path.absolute()


def write(path: Path, content: bytes) -> None:
    """Writes an object, whole or not at all, or raises an OSError."""
    try:
        path.write_bytes(content)
    except Exception as error:  # of many kinds, as above
        raise OSError(f"{path} cannot be written: {type(error).__name__}: {error}") from error


def remove(folder: Path) -> None:
    """Removes a folder with all that is in it, if it is there."""
    if is_in_bucket(folder):
        cast(epath.Path, folder).rmtree(missing_ok=True)
    else:
        shutil.rmtree(folder, ignore_errors=True)


class Lines:
    """Writes a file line by line; lines reach the bucket some seconds later."""

    def __init__(self, path: Path):
        self._path = path
        self._lines = [path.read_text()]
        self._written, self._is_new = time.monotonic(), False

    def write(self, line: str) -> None:
        """Adds a line."""
        self._lines.append(line)
        self._is_new = True
        if time.monotonic() - self._written > _DELAY:
            self.flush()

    def flush(self) -> None:
        """Writes the file to the bucket if it has new lines."""
        if self._is_new:
            write(self._path, "".join(self._lines).encode())
        self._written, self._is_new = time.monotonic(), False

    def close(self) -> None:
        """Ends the file."""
        self.flush()


@contextlib.contextmanager
def marked(path: Path, by: Holder) -> Iterator[None]:
    """Holds the mark ``path`` for the program ``by``, and renews it until the end.

    A mark of another program is first watched for ``FORGOTTEN`` seconds: if it is not renewed in
    that time it is void. So the clocks of two machines are never compared. A program that was
    stopped for longer may have lost its mark to another one, and then leaves it alone. Raises a
    ValueError if another program holds the mark.
    """
    _watch(path)
    _renew(path, by)
    ended = threading.Event()

    def renew():
        while not ended.wait(RENEWED):
            # A renewal that fails now may succeed the next time.
            with contextlib.suppress(Exception):
                if not _is_of(path, by):
                    return
                _renew(path, by)

    thread = threading.Thread(target=renew, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        with contextlib.suppress(Exception):  # a mark that stays becomes void
            if _is_of(path, by):
                path.unlink()


def mark_of(path: Path) -> dict[str, Any] | None:
    """Returns the fields of a mark's holder, if this machine's clock says it is a recent one."""
    mark = _read(path)
    return mark["by"] if mark and time.time() - mark["seen"] < FORGOTTEN else None


def _is_of(path, by) -> bool:
    mark = _read(path)
    return mark is not None and Holder(**mark["by"]) == by


def _renew(path, by):
    write(path, json.dumps({"by": dataclasses.asdict(by), "seen": time.time()}).encode())


def _read(path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return None


def _watch(path):
    """Waits until a mark is removed or void; raises a ValueError if it is renewed."""
    first, end = _read(path), time.monotonic() + FORGOTTEN
    if first is not None:
        logging.warning(
            "%s has a mark of %s: whether it still runs is known in %.0f seconds",
            *(path.parent, Holder(**first["by"]), FORGOTTEN),
        )
    while (mark := _read(path)) is not None and time.monotonic() < end:
        if mark != first:
            raise in_use(path.parent, Holder(**mark["by"]))
        time.sleep(RENEWED / 3)
