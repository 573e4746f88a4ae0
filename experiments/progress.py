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
    report = _bar if console.is_terminal else _lines
    with report(name, total, console) as advance:
        yield advance


@contextlib.contextmanager
def _bar(name, total, console):
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(name, total=total, note="")
        yield lambda note="", steps=1: progress.update(task, advance=steps, note=note)


@contextlib.contextmanager
def _lines(name, total, console):
    done, shown = 0, time.monotonic()

    def advance(note="", steps=1):
        nonlocal done, shown
        done += steps
        if time.monotonic() - shown >= PLAIN_EVERY:
            shown = time.monotonic()
            console.print(f"{name}  {done}/{total}  {note}", highlight=False)

    yield advance
