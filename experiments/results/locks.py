"""Lets one program at a time work in a folder, and says which one does.

A folder of a machine is locked by the operating system. A folder in a bucket cannot be locked, so a
program that works on it leaves a mark there, and renews the mark for as long as it runs.
"""

import contextlib
import dataclasses
import datetime
import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from absl import logging

from experiments.results import bucket
from experiments.results.record import agreed, parsed, writing

# Seconds between two renewals of a mark, and seconds after which a mark without renewal is void.
RENEWED, FORGOTTEN = 15.0, 60.0
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


def _in_use(folder: Path, by: Holder) -> ValueError:
    """Returns the error that says who holds a folder that is wanted."""
    return ValueError(f"{folder} is in use by {by}; wait until it is done, or stop it")


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Locks a folder for this program, so that no second program works in it.

    The operating system releases the lock when the program ends, however it ends. A bucket has a
    mark instead, which is void when it is no longer renewed. Raises a ValueError if another program
    has the folder; the message says which, and since when.
    """
    with contextlib.ExitStack() as stack:
        # The lock lasts as long as the file is open, in the first process of a job.
        agreed(lambda: stack.enter_context(_locked(folder)))
        yield


def holder(folder: Path) -> Holder | None:
    """Returns the program that holds a folder, if one does."""

    def find():
        if bucket.is_in_bucket(folder):
            return _mark_of(folder / "lock")
        try:
            with (folder / "lock").open() as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return None
        except BlockingIOError:
            return parsed((folder / "lock").read_text()) or {}
        return None

    fields = agreed(find)
    return None if fields is None else Holder(**fields)


def _lock(file) -> None:
    """Takes the lock of a file; waits for programs that take it for a moment in ``holder``."""
    for _ in range(20):
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        time.sleep(0.01)
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextlib.contextmanager
def _locked(folder):
    by = Holder.here()
    if bucket.is_in_bucket(folder):
        with _marked(folder / "lock", by):
            yield None
        return
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    # A link would let a stranger choose the file that is written.
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
    with os.fdopen(os.open(folder / "lock", flags, 0o666), "a+") as file:
        try:
            _lock(file)
        except BlockingIOError:
            file.seek(0)
            other = Holder(**(parsed(file.read()) or {}))  # a lock that was just taken is empty
            raise _in_use(folder, other) from None
        with writing(folder / "lock"):
            file.truncate(0)
            # Not by ``file``, which would write what a full disk refuses once more when it closes.
            os.write(file.fileno(), json.dumps(dataclasses.asdict(by)).encode())
        yield None


@contextlib.contextmanager
def _marked(path: Path, by: Holder) -> Iterator[None]:
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


def _mark_of(path: Path) -> dict[str, Any] | None:
    """Returns the fields of a mark's holder, if this machine's clock says it is a recent one."""
    mark = _read_mark(path)
    return mark["by"] if mark and time.time() - mark["seen"] < FORGOTTEN else None


def _is_of(path, by) -> bool:
    mark = _read_mark(path)
    return mark is not None and Holder(**mark["by"]) == by


def _renew(path, by):
    bucket.write(path, json.dumps({"by": dataclasses.asdict(by), "seen": time.time()}).encode())


def _read_mark(path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return None


def _watch(path):
    """Waits until a mark is removed or void; raises a ValueError if it is renewed."""
    first, end = _read_mark(path), time.monotonic() + FORGOTTEN
    if first is not None:
        logging.warning(
            "%s has a mark of %s: whether it still runs is known in %.0f seconds",
            *(path.parent, Holder(**first["by"]), FORGOTTEN),
        )
    while (mark := _read_mark(path)) is not None and time.monotonic() < end:
        if mark != first:
            raise _in_use(path.parent, Holder(**mark["by"]))
        time.sleep(RENEWED / 3)
