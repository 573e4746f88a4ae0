"""Reports the state of each point of an experiment, for ``launch.py --status``."""

import datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from experiments.results.locks import is_claimed
from experiments.results.metrics import read_steps
from experiments.results.record import check_run
from experiments.running.finished import missing_in
from experiments.running.points import Point
from experiments.running.study import Study

STATES = DONE, RUNNING, FAILED, STOPPED, MISSING = "done", "running", "failed", "stopped", "missing"


def status(study: Study, point: Point) -> dict[str, Any]:
    """Returns the state of a point, the step that it has reached, its speed, and a note.

    A point that has begun and that no program works on was stopped; the same command resumes it.
    """
    folder = study.folder(point)
    recipe, lines = study.recipe_of(point), read_steps(folder / "metrics.jsonl")
    line: dict[str, Any] = next((x for x in lines[::-1] if "seconds" in x), {})
    # A published model that is only read has no recipe.
    steps, step = recipe.steps if recipe else 0, line.get("step", 0)
    row = {"point": point.name, "step": step, "steps": steps, "speed": "", "note": ""}
    if finished := study.finished(point):
        lacks = ", ".join(missing_in(finished, point))
        note = f"lacks {lacks}" if lacks else ""
        step = finished["training"].get("steps", steps)
        return row | {"state": DONE, "step": step, "note": note}
    if is_claimed(folder):
        left = (steps - step) * line["seconds"] / step if step else 0.0
        ready = f"trained in {datetime.timedelta(seconds=round(left))}" if left else ""
        speed = f"{line['tokens_per_second']:.0f}" if "tokens_per_second" in line else ""
        return row | {"state": RUNNING, "speed": speed, "note": ready}
    is_begun = (folder / "run.json").exists()
    if is_begun:
        try:
            check_run(folder, study.describe(point))
        except ValueError as error:  # a run of another config
            return row | {"state": FAILED, "note": str(error)}
    if failure := study.failure(point):
        return row | {"state": FAILED, "note": failure["reason"]}
    return row | {"state": STOPPED if line or is_begun else MISSING}


def print_status(study: Study, console: Console) -> None:
    """Prints the state of every point, and how many points are in each state."""
    rows = [status(study, point) for point in study.points]
    table = Table("point", "state", "step", "tokens/s", "", box=None, header_style="bold")
    for row in rows:
        at = f"{row['step']}/{row['steps']}"
        words = row["point"], row["state"], at, row["speed"], row["note"]
        # As Text, so that brackets are no markup; folded, so that a long path is not cut off.
        table.add_row(*(Text(word, overflow="fold") for word in words))
    console.print(table)
    counts = [(state, sum(row["state"] == state for row in rows)) for state in STATES]
    console.print(", ".join(f"{count} {state}" for state, count in counts if count))
