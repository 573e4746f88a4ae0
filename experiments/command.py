"""Defines what the commands of this package share: how they end, and how they read an encoding."""

import argparse
import functools
import json
import sys
from collections.abc import Callable, Collection
from typing import Any

from experiments.preemption import PREEMPTED, PreemptedError
from posenc_jax.registry import REGISTRY, suggest


def exit_status(main: Callable[..., None]) -> Callable[..., int]:
    """Makes a command end with a one-sentence error for wrong input, and return an exit status.

    The status is 0 at the end of the command, 2 after an error in its input, and 75 if the
    scheduler asked to stop.
    """

    @functools.wraps(main)
    def ended(*arguments: Any) -> int:
        try:
            main(*arguments)
        except (ValueError, TypeError, OSError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        except PreemptedError as stop:
            print(stop, file=sys.stderr)
            return PREEMPTED
        return 0

    return ended


def count(text: str) -> int:
    """Reads a whole number of at least 1, as a ``type`` of argparse."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number of at least 1")
    return int(text)


def counts(text: str) -> list[int]:
    """Reads whole numbers of at least 1, separated by commas, as a ``type`` of argparse."""
    return [count(part) for part in text.split(",")]


def some_of(known: Collection[str]) -> Callable[[str], list[str]]:
    """Returns a ``type`` of argparse that reads known names, separated by commas."""

    def names(text: str) -> list[str]:
        for name in text.split(","):
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name!r} is unknown{suggest(name, known)}")
        return text.split(",")

    return names


schemes = some_of(REGISTRY)


def json_object(text: str) -> dict[str, Any]:
    """Reads an object of JSON, as a ``type`` of argparse."""
    try:
        given = json.loads(text)
    except ValueError:
        given = None
    if not isinstance(given, dict):
        raise argparse.ArgumentTypeError(f'{text} must be an object of JSON, such as {{"a": 1}}')
    return given


def encoding(text: str) -> dict[str, Any]:
    """Reads an encoding, a JSON object with a name and keywords, as a ``type`` of argparse."""
    given = json_object(text)
    if "name" not in given:
        raise argparse.ArgumentTypeError(
            f'{text} must be JSON with a name, such as {{"name": "yarn", "factor": 4.0}}'
        )
    return given
