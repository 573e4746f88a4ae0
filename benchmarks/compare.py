"""Measures how much time each stage of a comparison takes, scheme by scheme.

    python -m benchmarks.compare --schemes=rope,yarn,alibi --seeds=3

Trains and evaluates the schemes of ``configs/extrapolation.py:small`` in a folder that is deleted
afterwards, and prints the seconds of each stage. Compiling, tracing included, is counted apart from
the training or evaluation that needs it. A scheme that extends a trained one is evaluated and
counted with that one.
"""

import argparse
import collections
import contextlib
import sys
import tempfile
import time
from pathlib import Path

from experiments.training.host import keep_compiled, keep_freed_memory

if __name__ == "__main__":  # before JAX starts threads
    keep_freed_memory()

import jax
from rich.console import Console
from rich.table import Table

from configs.extrapolation import get_config
from experiments.command import count, exit_status
from experiments.joining import join_job
from experiments.running.schedule import run_points
from experiments.studies.text import Comparison, points
from experiments.training import run
from experiments.training.checkpoint import Checkpoints

STAGES = ("compile", "train", "evaluate", "checkpoint")
# JAX's names for the parts of compiling: tracing, lowering, and XLA or its cache.
_COMPILING = ("jaxpr_trace_duration", "jaxpr_to_mlir_module_duration", "backend_compile_duration")


class Stopwatch:
    """Counts seconds by scheme and stage; a nested stage is no part of the stage around it."""

    def __init__(self):
        self.seconds: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
        self._scheme = ""
        self._inner = 0.0
        jax.monitoring.register_event_duration_secs_listener(self._compiled)

    def _compiled(self, name: str, seconds: float, **about):
        if name.endswith(_COMPILING):
            self.seconds[self._scheme]["compile"] += seconds
            self._inner += seconds

    @contextlib.contextmanager
    def of(self, stage: str, scheme: str = ""):
        """Counts the time in this context, by default for the scheme of the context around it."""
        outer, self._inner, start = self._inner, 0.0, time.monotonic()
        self._scheme, scheme_outside = scheme or self._scheme, self._scheme
        yield
        elapsed = time.monotonic() - start
        self.seconds[self._scheme][stage] += elapsed - self._inner
        self._inner, self._scheme = outer + elapsed, scheme_outside


def print_table(seconds, total: float, console: Console) -> None:
    """Prints the seconds of each stage by scheme, and the rest of the total."""
    table = Table("scheme", *STAGES, "sum", title="seconds")
    rows = {scheme: counted for scheme, counted in seconds.items() if scheme != "all"}
    for scheme, counted in rows.items():
        cells = [counted[stage] for stage in STAGES]
        table.add_row(scheme, *(f"{cell:.1f}" for cell in (*cells, sum(cells))))
    sums = [sum(counted[stage] for counted in rows.values()) for stage in STAGES]
    table.add_row("all", *(f"{cell:.1f}" for cell in (*sums, sum(sums))))
    console.print(table)
    data, report = seconds["all"]["data"], seconds["all"]["report"]
    rest = total - sum(sums) - data - report
    console.print(
        f"{total:.0f} s in all: data {data:.1f}, report {report:.1f}, all else {rest:.1f}"
    )


@exit_status
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--schemes", help="default: all of the preset")
    parser.add_argument("--seeds", type=count, default=3)
    parser.add_argument(
        "--together", type=count, help="seeds in one program; default: the preset's"
    )
    args = parser.parse_args()
    config = get_config("small")
    config.seeds = args.seeds
    config.schemes = args.schemes or config.schemes
    config.together = args.together or config.together
    points(config)  # raises errors before anything starts
    watch, console = Stopwatch(), Console(highlight=False)

    class Timed(Comparison):
        """Runs a comparison and counts the seconds of its parts."""

        def train_together(self, group):
            with watch.of("train", group[0].label):
                return super().train_together(group)

        def train(self, point):
            with watch.of("train", point.label):
                return super().train(point)

        def evaluate(self, point, model):
            with watch.of("evaluate", point.label):
                return super().evaluate(point, model)

    class TimedCheckpoints(Checkpoints):
        """Saves and restores checkpoints and counts the seconds."""

        save = watch.of("checkpoint")(Checkpoints.save)
        newest = watch.of("checkpoint")(Checkpoints.newest)
        close = watch.of("checkpoint")(Checkpoints.close)

    run.Checkpoints = TimedCheckpoints
    start = time.monotonic()
    join_job()
    with tempfile.TemporaryDirectory() as folder:
        # As in launch.py, but nothing is compiled yet.
        keep_compiled(Path(folder) / "compiled")
        with watch.of("data", "all"):
            comparison = Timed(config, Path(folder), console)
        failures = run_points(comparison.parts)
        with watch.of("report", "all"):
            comparison.write_report("benchmarks.compare")
    total = time.monotonic() - start

    print_table(watch.seconds, total, console)
    console.print(f"{len(failures)} failures")


if __name__ == "__main__":
    sys.exit(main())
