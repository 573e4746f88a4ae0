"""Defines what the commands of this package share: how they end, and how they read an encoding."""

import argparse
import functools
import json
import sys
from collections.abc import Callable
from typing import Any

from experiments.peers import PREEMPTED
from experiments.preemption import PreemptedError


def exit_status(main: Callable[..., None]) -> Callable[..., int]:
    """Makes a command end with one sentence where its input is wrong, and return an exit status.

    The status is 0 at the end of the command, 2 after an error in what it was given, and 75 if the
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


def encoding(text: str) -> dict[str, Any]:
    """Reads an encoding, a JSON object with a name and keywords, as a ``type`` of argparse."""
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict) or "name" not in found:
        raise argparse.ArgumentTypeError(
            f'{text} must be JSON with a name, such as {{"name": "yarn", "factor": 4.0}}'
        )
    return found
