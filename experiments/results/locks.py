"""Lets one program at a time work in a folder."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from experiments.results.bucket import is_in_bucket
from experiments.results.record import agreed, writing


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Locks a folder for this program, so that no second program works in it.

    The operating system releases the lock when the program ends, however it ends. A folder in a
    bucket cannot be locked. Raises a ValueError if another program has the folder.
    """
    lock = _lock(folder)

    def take():
        if is_in_bucket(folder):
            return
        with writing(folder / "lock"):
            folder.mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire(timeout=1)  # ``is_claimed`` has it for a moment
            except Timeout:
                raise ValueError(
                    f"{folder} is in use by another program; wait until it is done, or stop it"
                ) from None

    agreed(take)
    try:
        yield
    finally:
        lock.release()


def is_claimed(folder: Path) -> bool:
    """Returns whether a program works in a folder; False in a bucket, where that is not known."""

    def find():
        if is_in_bucket(folder) or not (folder / "lock").exists():
            return False
        try:
            with _lock(folder).acquire(timeout=0):
                return False
        except Timeout:
            return True

    return agreed(find)


def _lock(folder: Path) -> FileLock:
    return FileLock(str(folder / "lock"))
