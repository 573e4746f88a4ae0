"""Keeps the files of runs in a bucket, where a workdir is ``gs://BUCKET/FOLDER``.

Paths in a bucket come from etils, with the methods of ``pathlib`` that are used here. Orbax
writes the arrays of a checkpoint to a bucket by itself. Three things cannot be done in a bucket. An
object cannot be renamed, but it becomes visible only when it is complete. An object cannot grow, so
a file that is written line by line is rewritten with all its lines. And a folder cannot be locked,
so ``locks.py`` leaves a mark there.
"""

import contextlib
import shutil
import time
from pathlib import Path
from typing import cast

import fsspec
from etils import epath

# A new line is written to the bucket if the last write is more seconds ago than this.
_DELAY = 30.0


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
