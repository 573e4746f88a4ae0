"""Defines a study: the points that it has, how each is run, and what is read of them.

A *point* is one trained scheme and one seed, with a folder of its own. Schemes that extend a
trained one are evaluated on its checkpoint, each with its encoding instead of the trained one.
"""

import abc
import contextlib
import dataclasses
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jax.sharding import Mesh
from ml_collections import ConfigDict
from rich.console import Console

from experiments.results.bucket import is_in_bucket
from experiments.results.environment import environment
from experiments.results.locks import claimed
from experiments.results.metrics import check_sinks
from experiments.results.record import (
    OtherConfigError,
    RefusedError,
    agreed,
    as_json,
    check_writable,
    open_run,
    write_json,
)
from experiments.results.report import Reported
from experiments.results.seal import check_metrics, write_evaluation
from experiments.running.finished import Finished, missing_in, of_schemes
from experiments.running.points import Point
from experiments.training.loop import abstract_state, train
from experiments.training.mesh import make_mesh, part_of_process, row_shards
from experiments.training.recipe import Goal, Recipe
from experiments.training.step import State, Task
from posenc_jax import Transformer
from posenc_jax.model.transformer import ROWS

# The fields that may change between two starts of the same run: they do not change its results.
_FREE_TO_CHANGE = ("log_every", "checkpoint_every", "tensorboard", "wandb", "profile_steps")


class Study(Finished, Reported):
    """Trains and evaluates points; a study is a subclass, which has the abstract methods.

    It makes the ``points``, and the ``recipe`` by which each is trained. Points that are finished
    in ``workdir`` are not run again. A subclass says what the report shows, see ``Reported``.
    """

    recipe: Recipe

    def __init__(self, config: ConfigDict, workdir: Path, console: Console):
        super().__init__(config.to_dict(), workdir)
        self.mesh, self.console = make_mesh(**config.mesh), console

    # What a study says.

    @abc.abstractmethod
    def task(self, point: Point) -> Task:
        """Returns the task that a point is trained on."""

    @abc.abstractmethod
    def evaluate(self, point: Point, model: Transformer) -> dict[str, Any]:
        """Returns the results of evaluating a trained model, as values of JSON."""

    # What a study may say.

    def print_point(self, point: Point, evaluation: dict[str, Any]) -> None:
        """Prints the results of a point, by default nothing: they are in the report."""

    def stages(self) -> list[list[Point]]:
        """Returns the points by stage; a point needs only points of earlier stages."""
        return [self.points]

    def recipe_and_seed(self, point: Point) -> dict[str, Any]:
        """Returns the recipe and the seed of a point, for ``describe``."""
        return {"train": recipe_fields(self.recipe_of(point)), "seed": point.seed}

    def goal(self, point: Point) -> Goal | None:
        """Returns when the training of a point may end early, or None for never."""
        return None

    def first_state(self, point: Point) -> Callable[[], State] | None:
        """Returns what makes the first state of a point; None for a new model of its task."""
        return None

    def recipe_of(self, point: Point) -> Recipe:
        """Returns the recipe of a point.

        A subclass may have other recipes for some points, and None for a model that is only read.
        """
        if point.rate is None:
            return self.recipe
        return dataclasses.replace(self.recipe, learning_rate=point.rate)

    @property
    def parts(self) -> dict[str, "Study"]:
        """Returns the studies that this one is made of, by their names: itself, without a name."""
        return {"": self}

    # How its points are run.

    def check(self) -> None:
        """Raises a ValueError if a batch or a model does not fit the mesh."""
        self.check_recipe(self.recipe)
        for point in {point.scheme: point for point in self.points}.values():
            abstract_state(self.task(point).init, self.recipe, self.mesh)

    def place_on(self, mesh: Mesh) -> None:
        """Takes another mesh, such as one of chips to compile for, and calls ``check``."""
        self.mesh = mesh
        self.check()

    def check_recipe(self, recipe: Recipe, name: str = "train") -> None:
        """Raises a ValueError if the recipe ``name`` does not fit the mesh or the workdir."""
        if is_in_bucket(self.workdir) and (recipe.tensorboard or recipe.profile_steps):
            raise ValueError(
                f"{name}.tensorboard and {name}.profile_steps write to a folder of this machine, "
                f"and {self.workdir} is in a bucket; leave them out, or give {name}.wandb"
            )
        part_of_process(self.mesh)
        shards = row_shards(self.mesh) * recipe.accumulate
        if recipe.batch_size % shards:
            raise ValueError(
                f"{name}.batch_size={recipe.batch_size} must be a multiple of {shards}: the "
                f"mesh's axes {' and '.join(ROWS)}, times {name}.accumulate"
            )

    def prepare(self) -> None:
        """Raises a ValueError or an OSError for what each of the points would fail of."""
        check_writable(self.workdir)
        for recipe in filter(None, map(self.recipe_of, self.points)):
            check_sinks(recipe.tensorboard, recipe.wandb)
        self.check_data()

    def train(self, point: Point) -> tuple[Transformer, dict[str, Any]]:
        """Trains a point in its folder, from its newest checkpoint, as ``loop.train`` does."""
        return train(
            self.task(point),
            self.recipe_of(point),
            self.mesh,
            seed=point.seed,
            folder=self.folder(point),
            console=self.console,
            name=f"{point.name}  train",
            start=self.first_state(point),
            goal=self.goal(point),
            context_by=self.config["mesh"]["context_by"],
        )

    def run(self, point: Point) -> None:
        """Trains and evaluates a point, as far as that is not done yet.

        Raises a ValueError if another program runs the point, the folder has a run of another
        config, or its files are damaged or lost.
        """
        folder = self.folder(point)
        with claimed(folder):
            run = open_run(folder, self.describe(point))
            if self.is_done(point):
                return
            check_metrics(folder)
            self._check_folder(point, run)
            (folder / "failure.json").unlink(missing_ok=True)
            model, summary = self.train(point)  # reads the model of a point that is finished
            evaluation = {
                **self._evaluate_missing(point, model),
                "config": as_json(self.describe_evaluation(point)),
                "training": {"scheme": point.label, "seed": point.seed} | summary,
            }
            write_evaluation(folder, evaluation)
        if summary["tokens"]:
            speed = summary["tokens"] / summary["seconds"]
            self._print(
                f"  {point.name}: {summary['seconds']:.1f} s of training, {speed:,.0f} tokens/s"
            )
        self.print_point(point, evaluation)

    def _check_folder(self, point: Point, run: dict[str, Any] | None) -> None:
        """Says what is done with what is in a folder; raises a RefusedError if it would be lost."""
        folder = self.folder(point)
        has_checkpoints = agreed((folder / "checkpoints").exists)
        if has_checkpoints and run and run.get("source") != environment()["source"]:
            self._print(
                f"  {folder} was begun by other source code, and goes on with this: delete the "
                "folder to train it by one code alone"
            )
        is_evaluated = agreed((folder / "evaluation.json").exists)
        if is_evaluated and not has_checkpoints:
            raise RefusedError(
                f"{folder} has an evaluation that is damaged or of another config, and no "
                "checkpoint to evaluate again: give the old values, or another --workdir, or "
                "delete the folder to train again"
            )
        if is_evaluated and self.finished(point) is None:
            self._print(
                f"  {folder} has results that are damaged or of other settings, which new ones "
                "replace: give another --workdir to keep them"
            )

    def _evaluate_missing(self, point: Point, model: Transformer) -> dict[str, Any]:
        """Returns the results of a point, and evaluates only what it lacks."""
        before = self.finished(point)
        missing = missing_in(before, point)
        evaluation = self.evaluate(dataclasses.replace(point, extensions=missing), model)
        if before is None:
            return evaluation
        added = of_schemes(evaluation, missing)
        return before | {key: before[key] + records for key, records in added.items()}

    def fail(self, point: Point, error: Exception) -> dict[str, Any]:
        """Records that a point has failed; returns its scheme, its seed and the reason."""
        reason = f"{type(error).__name__}: {error}"
        failure = {"scheme": point.label, "seed": point.seed, "reason": reason}
        self._print(f"  FAILED {reason}", style="bold red")
        folder = self.folder(point)
        # The folder itself may have failed; then only the terminal has the reason. A point that
        # another program works on has not failed, nor has the run of another config in the folder.
        with contextlib.suppress(OSError, ValueError), claimed(folder):
            if not isinstance(error, OtherConfigError):
                record = failure | {"traceback": "".join(traceback.format_exception(error))}
                write_json(folder / "failure.json", record)
        return failure

    def _print(self, line: str, style: str | None = None) -> None:
        self.console.print(line, style=style)


def recipe_fields(recipe: Recipe) -> dict[str, Any]:
    """Returns the fields of a recipe that decide what is computed."""
    fields = dataclasses.asdict(recipe)
    if recipe.products == "float32":
        del fields["products"]  # runs that are older than this field were computed so
    if not recipe.phases:
        del fields["phases"]
    return {key: value for key, value in fields.items() if key not in _FREE_TO_CHANGE}
