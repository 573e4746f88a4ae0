"""Measures what the trainer adds to a bare training step, and what its services cost.

    python -m benchmarks.scale

It prints three figures. *Trainer*: the time of a step of ``train``, which draws a batch, records
and asks whether to stop, over that of the same jitted function in a bare loop; rounds of both
alternate. *Checkpoint*: for how many steps a checkpoint stops the run, and by how many steps, with
its writing in the background, it delays the run up to the next checkpoint. *Second sweep*: the
share of time that an identical sweep, whose programs are kept on disk, spends compiling.
"""

import argparse
import dataclasses
import io
import itertools
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

from experiments.training.host import keep_compiled, keep_freed_memory

if __name__ == "__main__":  # before JAX starts threads
    keep_freed_memory()

import jax
import numpy as np
from rich.console import Console

from benchmarks.ours import VOCAB, model_sizes, shape_parser, start
from configs.extrapolation import PRESETS, get_config
from experiments.command import count, exit_status, schemes, some_of
from experiments.joining import join_job
from experiments.running.schedule import run_points
from experiments.studies.text import Comparison
from experiments.training.data import Corpus
from experiments.training.loop import train
from experiments.training.mesh import make_mesh
from experiments.training.parameters import parameter_count
from experiments.training.recipe import Recipe
from experiments.training.text import Text, spec_of
from experiments.training.windows import window_index

# Steps at the start of a loop that are not counted.
WARM = 3
# JAX's name for the time of compiling, or of reading a compiled program from the cache.
COMPILING = "/jax/core/compile/backend_compile_duration"


@dataclasses.dataclass(frozen=True, eq=False)
class Timed(Text):
    """Notes the time at which the batch of each step is drawn."""

    moments: dict[int, float] = dataclasses.field(default_factory=dict)

    def batch(self, seed, step, part, parts):
        self.moments[step] = time.perf_counter()
        return super().batch(seed, step, part, parts)


def make_task(args: argparse.Namespace, recipe: Recipe) -> Timed:
    """Returns a task of the shape on the command line, on random tokens."""
    tokens = np.random.default_rng(0).integers(0, VOCAB, 4 * args.batch * (args.length + 1))
    ends, splits = np.array([0, tokens.size]), np.zeros(1, np.int8)
    corpus = Corpus("random", tokens.astype(np.uint8), ends, splits, VOCAB, 1.0, "digest")
    spec = spec_of({"name": "rope"}, model_sizes(args))
    return Timed(recipe, window_index(corpus, args.length), spec)


def bare_loop(task: Timed):
    """Returns a function that runs bare steps, and returns the seconds of each but the first."""
    state, step = start(task)
    step, key = jax.jit(step, donate_argnums=0), jax.random.key(0)
    holder, batch = {"state": state}, jax.device_put(task.batch(0, 1, 0, 1))

    def run(steps):
        moments, pending = [], None
        for _ in range(steps):
            moments.append(time.perf_counter())
            holder["state"], numbers = step(holder["state"], batch, key)
            if pending is not None:  # like the trainer, which reads the loss of the step before
                float(pending["loss"])
            pending = numbers
        return [after - before for before, after in itertools.pairwise(moments)][WARM:]

    return run


def trainer_and_checkpoints(args: argparse.Namespace) -> None:
    """Prints the trainer's step in bare steps, and the cost of a checkpoint in trainer's steps."""
    every = args.steps // 3
    recipe = Recipe(
        length=args.length, batch_size=args.batch, steps=args.steps, checkpoint_every=every
    )
    task, mesh = make_task(args, recipe), make_mesh()
    bare = bare_loop(task)
    bare(WARM + 2)
    ratios, stops, delays = [], [], []
    for _ in range(args.rounds):
        with tempfile.TemporaryDirectory() as folder:
            console = Console(file=io.StringIO())
            train(task, recipe, mesh, seed=0, folder=Path(folder), console=console)
        moments = task.moments
        # A step that saves leaves the devices idle and slows the next step too: both are left out.
        saved = [s for s in range(WARM + 1, args.steps) if s % every == 0]
        disturbed = {s + n for s in saved for n in (0, 1)}
        plain = [
            moments[s + 1] - moments[s] for s in range(WARM + 1, args.steps) if s not in disturbed
        ]
        usual = statistics.median(plain)
        ratios.append(usual / statistics.median(bare(args.steps)))
        stops += [(moments[s + 2] - moments[s]) / usual - 2 for s in saved]
        delays += [
            (moments[min(s + every, args.steps)] - moments[s]) / usual
            - (min(s + every, args.steps) - s)
            for s in saved
        ]
    parameters = parameter_count(jax.eval_shape(task.init, jax.random.key(0)))
    print(f"{parameters / 1e6:.2f}M parameters, {1e3 * usual:.0f} ms a step, {args.rounds} rounds")
    print(f"trainer's step over a bare one: {statistics.median(ratios):.3f} (bar 1.03)")
    print(
        f"a checkpoint stops the run for {statistics.median(stops):.2f} steps (bar 1), and delays "
        f"it by {statistics.median(delays):.2f} in all"
    )


def second_sweep(args: argparse.Namespace) -> None:
    """Prints the share of its time that a second identical sweep spends compiling."""
    spent: dict[str, float] = {}

    def listen(event, seconds, **_):
        spent[event] = spent.get(event, 0.0) + seconds

    jax.monitoring.register_event_duration_secs_listener(listen)
    config = get_config(args.preset)
    config.schemes, config.seeds, config.corpus = ",".join(args.schemes), 1, "stdlib"
    config.train.steps = args.sweep_steps
    shares = []
    with tempfile.TemporaryDirectory() as folder:
        workdir = Path(folder)
        keep_compiled(workdir / "compiled")
        for _ in range(2):
            shutil.rmtree(workdir / "runs", ignore_errors=True)
            jax.clear_caches()
            spent.clear()
            start = time.perf_counter()
            sweep = Comparison(config, workdir, Console(file=io.StringIO()))
            assert run_points(sweep.parts) == [], "the sweep failed"
            shares.append((spent.get(COMPILING, 0.0), time.perf_counter() - start))
    jax.config.update("jax_compilation_cache_dir", None)
    (first, first_all), (second, second_all) = shares
    print(
        f"a sweep of {config.schemes}: {first:.1f} of {first_all:.1f} s compiling; a second one "
        f"{second:.1f} of {second_all:.1f} s, {100 * second / second_all:.1f} % (bar 5 %)"
    )


PARTS = {"trainer": trainer_and_checkpoints, "sweep": second_sweep}


@exit_status
def main() -> None:
    parser = shape_parser(__doc__, batch=8, length=256)
    parser.set_defaults(rounds=5)
    parser.add_argument("--steps", type=count, default=30, help="of a loop; 12 or more")
    parser.add_argument("--preset", default="small", choices=PRESETS, help="of the sweep")
    parser.add_argument("--schemes", type=schemes, default="rope,yarn,alibi", help="of the sweep")
    parser.add_argument("--sweep-steps", type=count, default=200)
    parts = ",".join(PARTS)
    parser.add_argument("--parts", type=some_of(PARTS), default=parts, help=f"some of {parts}")
    args = parser.parse_args()
    if args.steps < 12:
        parser.error(f"--steps={args.steps} must be at least 12")
    join_job()
    print(f"{jax.devices()[0].device_kind}, {os.cpu_count()} cores, jax {jax.__version__}")
    for name in args.parts:
        PARTS[name](args)


if __name__ == "__main__":
    sys.exit(main())
