"""Names the program that holds a folder, in the folder's lock or mark, see ``record.claimed``."""

import dataclasses
import datetime
import os
import socket
from pathlib import Path
from typing import Any


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

    @classmethod
    def of(cls, fields: Any) -> "Holder":
        """Returns the program with these fields, or one without a name if they are no such fields.

        Locks of earlier versions hold a sentence, and a lock that was just taken holds nothing yet.
        """
        try:
            return cls(**fields)
        except TypeError:
            return cls()

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
