"""Reads files that may come from strangers: none hangs a program or fills its memory."""

import json
from pathlib import Path
from typing import Any

MOST_BYTES = 2**28
_MOST_LEVELS = 100  # so that code which calls itself on each level of a value never goes too deep


def read_bytes(path: Path, most: int = MOST_BYTES) -> bytes:
    """Returns the content of a file of at most ``most`` bytes.

    Raises a FileNotFoundError if there is none, and a ValueError if it is larger, or no file but a
    folder, a pipe or a device, which may have no end.
    """
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} must be a file, and is a folder, a pipe or a device")
    with path.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise ValueError(f"{path} has more than {most >> 20} MiB, which no such file has")
    return content


def read_json(path: Path) -> Any:
    """Returns the value of JSON in a file; raises the errors of ``read_bytes`` and ``parsed``."""
    content = read_bytes(path)
    try:
        return parsed(content)
    except ValueError as error:
        raise ValueError(f"{path} is damaged, and cannot be read as JSON: {error}") from None


def parsed(text: str | bytes) -> Any:
    """Returns a value of JSON; raises a ValueError for another text, or for over 100 levels."""
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError("it has too many levels") from None
    level = [value]
    for _ in range(_MOST_LEVELS):
        level = [inner for one in level for inner in _within(one)]
    if level:
        raise ValueError("it has too many levels")
    return value


def _within(value):
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()
