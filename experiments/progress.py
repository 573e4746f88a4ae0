"""Shows the progress of long stages: a bar on a terminal, a plain line now and then elsewhere."""

import contextlib
import datetime
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


class TimeLeft:
    """Estimates how long the rest of many similar things will take, from those done here.

    Args:
      programs: how many programs divide them; 0 if that is not known, for no estimate.
    """

    def __init__(self, programs: int = 1):
        self._programs = programs
        self._start = time.monotonic()
        self._done, self._seconds = 0, 0.0

    def count(self, done: int) -> None:
        """Counts so many more as done by this program up to now."""
        self._done += done
        self._seconds = time.monotonic() - self._start

    def words(self, left: int) -> str:
        """Returns a phrase on the time that ``left`` more will take; empty until one was done."""
        if not (self._done and left and self._programs):
            return ""
        share = -(-left // self._programs)
        seconds = self._seconds / self._done * share
        return f", about {datetime.timedelta(seconds=round(seconds))} left"
