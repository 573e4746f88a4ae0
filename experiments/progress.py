"""Shows the progress of long stages: a bar on a terminal, a plain line now and then elsewhere."""

import contextlib
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

PLAIN_EVERY = 15.0  # seconds between lines where there is no terminal


@contextlib.contextmanager
def stage(name: str, total: int, console: Console) -> Iterator[Callable[..., None]]:
    """Shows ``name`` advancing to ``total``; call the ``advance(note, steps=1)`` that it yields."""
    if console.is_terminal:
        what, note = (
            TextColumn("{task.description}", markup=False),
            TextColumn("{task.fields[note]}"),
        )
        columns = what, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), note
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task(name, total=total, note="")
            yield lambda note="", steps=1: progress.update(task, advance=steps, note=note)
        return
    done, shown = 0, time.monotonic()

    def advance(note="", steps=1):
        nonlocal done, shown
        done += steps
        if time.monotonic() - shown >= PLAIN_EVERY:
            shown = time.monotonic()
            console.print(f"{name}  {done}/{total}  {note}")

    yield advance
