"""Defines what the commands of this package share: how they end, and how they read an encoding."""

import argparse
import functools
import json
from collections.abc import Callable, Collection
from typing import Any

from experiments.endings import status_of
from posenc_jax.registry import REGISTRY, suggest


def exit_status(main: Callable[..., None]) -> Callable[..., int]:
    """Makes a command return an exit status, see ``status_of``; 0 at its end."""

    def run(*arguments: Any) -> int:
        main(*arguments)
        return 0

    return functools.wraps(main)(functools.partial(status_of, run))


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
