"""Many runs: every scheme trained under every seed, each once, whatever stops the program.

A *point* is one trained scheme and one seed, with a folder of its own. Schemes that extend a
trained one are evaluated on its checkpoint, each with its encoding in the place of the trained one.
"""

import contextlib
import dataclasses
import functools
import traceback
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh
from rich.console import Console

from experiments.mesh import state_shardings
from experiments.preemption import PreemptedError
from experiments.record import open_run, read_json, write_json
from experiments.train import Recipe, Task, initial_state, train

# What may change between two starts of the same run: it decides when, not what, is computed.
_FREE_TO_CHANGE = ("log_every", "checkpoint_every", "tensorboard")


@dataclasses.dataclass(frozen=True)
class Point:
    """One training run. ``extensions`` are the schemes evaluated on its checkpoint."""

    scheme: str
    seed: int
    extensions: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.scheme}/seed{self.seed}"


def points(names: list[str], extend: dict[str, str], seeds: int) -> list[Point]:
    """Every trained scheme of ``names`` under every seed, seeds outermost.

    So that a comparison cut short has all schemes under fewer seeds, not fewer schemes. ``extend``
    has the trained scheme of each one that extends another.
    """
    if seeds < 1:
        raise ValueError(f"seeds={seeds} must be at least 1")
    extensions: dict[str, list[str]] = {}
    for name in names:
        if name in extend:
            extensions.setdefault(extend[name], []).append(name)
    trained = [name for name in names if name not in extend]
    for name in extensions:
        if name not in trained:
            raise ValueError(
                f"{', '.join(extensions[name])} is evaluated on a trained {name}; add {name} to "
                "schemes"
            )
    return [
        Point(name, seed, tuple(extensions.get(name, ())))
        for seed in range(seeds)
        for name in trained
    ]


class Sweep:
    """Checked points, ready to run. A subclass says what a point is made of.

    Args:
      points: what to run.
      recipe: how each is trained.
      mesh: on which devices.
      workdir: where everything goes; what is already there and finished is not done again.
      console: where progress and tables go.
    """

    def __init__(
        self, points: list[Point], recipe: Recipe, mesh: Mesh, workdir: Path, console: Console
    ):
        self.points = points
        self.recipe = recipe
        self.mesh = mesh
        self.workdir = workdir
        self.console = console

    def task(self, scheme: str) -> Task:
        """What a point of ``scheme`` is trained on."""
        raise NotImplementedError

    def describe_training(self, scheme: str) -> dict[str, Any]:
        """All that decides what is trained, but for the recipe and the seed."""
        raise NotImplementedError

    def describe_evaluation(self, point: Point) -> dict[str, Any]:
        """All that decides what ``evaluate`` finds in a trained model."""
        raise NotImplementedError

    def evaluate(self, point: Point, model) -> dict[str, Any]:
        """What was found, as JSON."""
        raise NotImplementedError

    def print_point(self, point: Point, evaluation: dict[str, Any]) -> None:
        """Prints what was found."""
        raise NotImplementedError

    def check(self) -> None:
        """Refuses a batch or a model that does not fit the mesh."""
        shards = self.mesh.shape["data"] * self.recipe.accumulate
        if self.recipe.batch_size % shards:
            raise ValueError(
                f"train.batch_size={self.recipe.batch_size} must be a multiple of {shards}: the "
                "mesh's data axis times train.accumulate"
            )
        for scheme in {point.scheme: None for point in self.points}:
            init = functools.partial(initial_state, init=self.task(scheme).init, recipe=self.recipe)
            state_shardings(jax.eval_shape(init, jax.random.key(0)), self.mesh)

    def run(self, task_id: int | None = None) -> list[dict]:
        """Runs all points, or the one numbered ``task_id``; returns the failures."""
        chosen = self.points
        if task_id is not None:
            if not 0 <= task_id < len(self.points):
                raise ValueError(
                    f"task_id={task_id} must be in 0..{len(self.points) - 1}: there are "
                    f"{len(self.points)} points"
                )
            chosen = [self.points[task_id]]
        failures = []
        for number, point in enumerate(chosen, 1):
            self.console.print(f"[{number}/{len(chosen)}] {point.name}", highlight=False)
            try:
                self._run_point(point)
            except PreemptedError:
                raise
            except Exception as error:  # one scheme failing must not take the others with it
                failures.append(self._failed(point, error))
        return failures

    def results(self) -> tuple[list[dict], list[dict], list[dict]]:
        """Evaluations of all finished points, what training cost, and the failures.

        Each cost has ``scheme``, and ``trained``, the scheme of its checkpoint.
        """
        evaluations, training, failures = [], [], []
        for point in self.points:
            folder = self._folder(point)
            if finished := self._finished(point):
                evaluations.append(finished)
                for scheme in (point.scheme, *point.extensions):
                    trained = {"scheme": scheme, "trained": point.scheme}
                    training.append(finished["training"] | trained)
            elif failure := read_json(folder / "failure.json"):
                del failure["traceback"]
                failures.append(failure)
        return evaluations, training, failures

    def _folder(self, point) -> Path:
        return self.workdir / "runs" / point.scheme / f"seed{point.seed}"

    def _finished(self, point) -> dict[str, Any] | None:
        finished = read_json(self._folder(point) / "evaluation.json")
        current = finished and finished["config"] == plain(self.describe_evaluation(point))
        return finished if current else None

    def _run_point(self, point):
        folder = self._folder(point)
        recipe = dataclasses.asdict(self.recipe)
        recipe = {key: value for key, value in recipe.items() if key not in _FREE_TO_CHANGE}
        description = self.describe_training(point.scheme)
        open_run(folder, description | {"train": recipe, "seed": point.seed})
        if self._finished(point):
            self.console.print("  done before, skipped", highlight=False)
            return
        model, summary = train(
            self.task(point.scheme),
            self.recipe,
            self.mesh,
            seed=point.seed,
            folder=folder,
            console=self.console,
            name=f"{point.name}  train",
        )
        evaluation = {
            "config": plain(self.describe_evaluation(point)),
            **self.evaluate(point, model),
            "training": {"scheme": point.scheme, "seed": point.seed} | summary,
        }
        write_json(folder / "evaluation.json", evaluation)
        (folder / "failure.json").unlink(missing_ok=True)
        speed = summary["tokens"] / summary["seconds"]
        self.console.print(
            f"  trained in {summary['seconds']:.1f} s, {speed / 1e3:.0f}k tokens/s", highlight=False
        )
        self.print_point(point, evaluation)

    def _failed(self, point, error) -> dict:
        reason = f"{type(error).__name__}: {error}"
        failure = {"scheme": point.scheme, "seed": point.seed, "reason": reason}
        self.console.print(f"  FAILED {reason}", style="bold red", highlight=False, markup=False)
        folder = self._folder(point)
        # The folder may be what failed; the sentence above is on the terminal.
        with contextlib.suppress(OSError):
            write_json(folder / "failure.json", failure | {"traceback": traceback.format_exc()})
        return failure


def plain(value):
    """``value`` as JSON will give it back: tuples as lists."""
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    return [plain(each) for each in value] if isinstance(value, (list, tuple)) else value
