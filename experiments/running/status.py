"""Reports the state of each point of an experiment, for ``launch.py --status``."""

import datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from experiments.results.locks import holder
from experiments.results.metrics import read_steps
from experiments.results.record import check_run
from experiments.running.finished import missing_in
from experiments.running.points import Point
from experiments.running.schedule import best_note
from experiments.running.sweep import Sweep

STATES = DONE, RUNNING, FAILED, STOPPED, MISSING = "done", "running", "failed", "stopped", "missing"


def status(sweep: Sweep, point: Point) -> dict[str, Any]:
    """Returns the state of a point, the step that it has reached, its speed, and a note.

    A point that has begun and that no program works on was stopped; the same command resumes it.
    """
    folder = sweep.folder(point)
    recipe, lines = sweep.recipe_of(point), read_steps(folder / "metrics.jsonl")
    line: dict[str, Any] = next((x for x in lines[::-1] if "seconds" in x), {})
    # A published model that is only read has no recipe.
    steps, step = recipe.steps if recipe else 0, line.get("step", 0)
    row = {"point": point.name, "step": step, "steps": steps, "speed": "", "note": ""}
    if finished := sweep.finished(point):
        lacks = ", ".join(missing_in(finished, point))
        notes = best_note(finished["training"], folder), lacks and f"lacks {lacks}"
        note = "; ".join(filter(None, notes))
        step = finished["training"].get("steps", steps)
        return row | {"state": DONE, "step": step, "note": note}
    if by := holder(folder):
        # Each of the points that are trained as one program counts its share of the seconds.
        together = next(group for group in sweep.groups(sweep.points) if point in group)
        held = [holder(sweep.folder(other)) for other in together]
        count = sum(by_other is not None and by_other.program == by.program for by_other in held)
        left = count * (steps - step) * line["seconds"] / step if step else 0.0
        ready = f"; trained in {datetime.timedelta(seconds=round(left))}" if left else ""
        speed = f"{line['tokens_per_second']:.0f}" if "tokens_per_second" in line else ""
        return row | {"state": RUNNING, "speed": speed, "note": f"by {by}{ready}"}
    is_begun = (folder / "run.json").exists()
    if is_begun:
        try:
            check_run(folder, sweep.describe(point))
        except ValueError as error:  # a run of another config
            return row | {"state": FAILED, "note": str(error)}
    if failure := sweep.failure(point):
        return row | {"state": FAILED, "note": failure["reason"]}
    return row | {"state": STOPPED if line or is_begun else MISSING}


def print_status(sweep: Sweep, console: Console) -> None:
    """Prints the state of every point, and how many points are in each state."""
    rows = [status(sweep, point) for point in sweep.points]
    table = Table("point", "state", "step", "tokens/s", "", box=None, header_style="bold")
    for row in rows:
        at = f"{row['step']}/{row['steps']}"
        words = row["point"], row["state"], at, row["speed"], row["note"]
        # As Text, so that brackets are no markup; folded, so that a long path is not cut off.
        table.add_row(*(Text(word, overflow="fold") for word in words))
    console.print(table)
    counts = [(state, sum(row["state"] == state for row in rows)) for state in STATES]
    console.print(", ".join(f"{count} {state}" for state, count in counts if count))
