"""Draws how time and memory grow with length, batch, layers, heads and the number of schemes.

    python -m benchmarks.growth --out=docs

For each axis one size grows and all others stay fixed. A training step and an evaluation (the
losses of the same tokens) are timed, and memory is what XLA plans for the temporaries of the step.
On the axis of schemes a whole run of ``configs/extrapolation.py:tiny`` is measured in a process of
its own: its time includes starting, compiling and the report, its memory is the peak resident size.
The folder of ``--out`` gets a picture for each axis, and ``data/growth.csv`` after every point;
rows that the table has of other points stay as they are. The legends have the exponents: the slope
of a line through the larger half of the points, on logarithmic axes.
"""

import argparse
import csv
import functools
import itertools
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from experiments.training.host import keep_freed_memory

if __name__ == "__main__":  # before JAX starts threads
    keep_freed_memory()

import jax
import numpy as np
from matplotlib.figure import Figure
from rich.console import Console

from benchmarks.ours import VOCAB, exponent, seconds_of, start
from experiments.command import count, exit_status, some_of
from experiments.progress import stage
from experiments.results.record import write_files
from experiments.results.reports.drawing import drawing_style, svg
from experiments.results.statistics import csv_of
from experiments.training.recipe import Recipe
from experiments.training.text import Text, spec_of, token_losses

# The sizes while another size grows, and the values of each growing size.
FIXED = {"length": 1024, "batch": 1, "layers": 2, "heads": 4}
AXES = {
    "length": tuple(2**k for k in range(10, 17)),
    "batch": (1, 2, 4, 8, 16, 32),
    "layers": (1, 2, 4, 8, 16, 32),
    "heads": (1, 2, 4, 8, 16),
    "schemes": (1, 2, 4, 8),
}
HEAD_DIM = 32
SCHEMES = ("rope", "alibi", "nope", "t5", "kerple_log", "sandwich", "fire", "shaw")
UNITS = {"step": "s", "evaluation": "s", "run": "s", "memory": "MiB"}


def measure(name: str, *, length: int, batch: int, layers: int, heads: int) -> dict[str, float]:
    """Returns the seconds of a step and of an evaluation, and the MiB of the step's temporaries.

    Heads have 32 channels each, so the width of the model grows with them.
    """
    sizes = {"model_dim": heads * HEAD_DIM, "num_layers": layers, "num_heads": heads}
    model = {"vocab_size": VOCAB, "scan": True} | sizes
    spec = spec_of({"name": name}, model)
    recipe = Recipe(length=length, batch_size=batch, steps=1000)
    (state, step), key = start(Text(recipe, None, spec)), jax.random.key(1)
    tokens = np.random.default_rng(0).integers(0, VOCAB, (batch, length + 1)).astype(np.int32)
    stepping = jax.jit(step).lower(state, tokens, key).compile()
    reading = jax.jit(token_losses).lower(state.model, tokens).compile()
    return {
        "step": _seconds(functools.partial(stepping, state, tokens, key)),
        "evaluation": _seconds(functools.partial(reading, state.model, tokens)),
        "memory": stepping.memory_analysis().temp_size_in_bytes / 2**20,
    }


def _seconds(call) -> float:
    """Returns the median time of 2 to 9 calls, as many as begin within two seconds."""
    jax.block_until_ready(call())
    seconds: list[float] = []
    while len(seconds) < 2 or (len(seconds) < 9 and sum(seconds) < 2.0):
        seconds.append(seconds_of(call))
    return statistics.median(seconds)


# Runs a command and prints its peak resident memory in KiB. This is a small process of its own,
# because the figure of a child includes the memory that its parent held at the fork.
_WATCHED = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def measure_run(count: int) -> dict[str, float]:
    """Returns the seconds and the peak MiB of a whole tiny comparison of ``count`` schemes."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", _WATCHED, sys.executable, "launch.py"]
        command += ["--config=configs/extrapolation.py:tiny"]
        command += [f"--workdir={folder}", f"--config.schemes={','.join(SCHEMES[:count])}"]
        start = time.perf_counter()
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        seconds = time.perf_counter() - start
    return {"run": seconds, "memory": int(done.stdout) / 1024}


def picture(axis: str, rows: list[dict]) -> str:
    """Returns time and memory against one axis, as SVG."""
    with drawing_style():
        figure = Figure(figsize=(7, 2.8), layout="constrained")
        panels = dict(zip(("s", "MiB"), figure.subplots(1, 2), strict=True))
        sizes = [row[axis] for row in rows]
        half = len(sizes) // 2  # exponents are those of the larger half
        for what in (key for key in rows[0] if key in UNITS):
            values = [row[what] for row in rows]
            label = f"{what}, ~ {axis}^{exponent(sizes[half:], values[half:]):.2f}"
            panels[UNITS[what]].loglog(sizes, values, marker="o", markersize=3, label=label)
        for unit, panel in panels.items():
            panel.set_xlabel(axis)
            panel.set_ylabel({"s": "seconds", "MiB": "memory, MiB"}[unit])
            panel.set_xticks(sizes, [str(size) for size in sizes], minor=False)
            panel.set_xticks([], minor=True)
            panel.legend(frameon=False)
        return svg(figure)


def read_table(path: Path) -> dict[tuple[str, int], dict]:
    """Returns the rows of an earlier ``growth.csv``, by axis and size; none if there is no file."""
    if not path.exists():
        return {}
    with path.open(newline="") as file:
        return {(row["axis"], int(row[row["axis"]])): row for row in csv.DictReader(file)}


def write_table(path: Path, rows: dict[tuple[str, int], dict]) -> None:
    """Writes all rows, in the order of axes and sizes."""
    order = list(AXES)
    ordered = [rows[key] for key in sorted(rows, key=lambda k: (order.index(k[0]), k[1]))]
    text = csv_of(ordered, ["axis", *FIXED, "schemes", *UNITS])
    write_files(path.parent, {path.name: text})


def points_of(axes: Sequence[str], most: int) -> list[tuple[str, int]]:
    """Returns the axis and the size of each point."""
    points = []
    for axis in axes:
        sizes = [size for size in AXES[axis] if size <= most]
        if len(sizes) < 3:
            raise ValueError(
                f"--most={most} must be at least {AXES[axis][2]}: the exponent of {axis} needs "
                "three sizes"
            )
        points += [(axis, size) for size in sizes]
    return points


@exit_status
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--axes", type=some_of(AXES), default=",".join(AXES))
    parser.add_argument("--encoding", default="rope")
    parser.add_argument("--most", type=count, default=2**16, help="the largest size on any axis")
    parser.add_argument("--out", type=Path, default=Path("docs"), metavar="FOLDER")
    args = parser.parse_args()
    points, path = points_of(args.axes, args.most), args.out / "data/growth.csv"
    rows = read_table(path)
    with stage("growth", len(points), Console(stderr=True)) as advance:
        for axis, size in points:
            if axis == "schemes":
                measured = {"axis": axis, axis: size} | measure_run(size)
            else:
                sizes = FIXED | {axis: size}
                measured = {"axis": axis} | sizes | measure(args.encoding, **sizes)
            rows[axis, size] = measured
            write_table(path, rows)  # so that an interruption loses nothing
            advance(f"{axis} {size}")
    files = {}
    for axis, some in itertools.groupby(points, key=lambda point: point[0]):
        of_axis = [rows[point] for point in some]
        files[f"growth_{axis}.svg"] = picture(axis, of_axis)
        for row in of_axis:
            figures = {key: round(row[key], 4) for key in UNITS if key in row}
            print(f"{axis} {row[axis]}: {figures}")
    write_files(args.out, files)


if __name__ == "__main__":
    sys.exit(main())
