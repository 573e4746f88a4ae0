"""Defines what a study is to ``schedule.py``, which runs it: points, and what is done with each.

A *point* is one trained scheme and one seed, with a folder of its own. Schemes that extend a
trained one are evaluated on its checkpoint, each with its encoding instead of the trained one.
"""

import abc
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
from jax.sharding import Mesh
from matplotlib.figure import Figure
from ml_collections import ConfigDict
from rich.console import Console

from experiments.results import report
from experiments.results.bucket import is_in_bucket
from experiments.results.table import Table
from experiments.running.finished import Finished, missing_in, of_schemes
from experiments.running.points import Point
from experiments.training.loop import abstract_state, train, train_together
from experiments.training.mesh import make_mesh, part_of_process, row_shards
from experiments.training.recipe import Goal, Recipe
from experiments.training.step import State, Task
from posenc_jax import Transformer
from posenc_jax.model.transformer import ROWS

# The fields that may change between two starts of the same run: they do not change its results.
_FREE_TO_CHANGE = ("log_every", "checkpoint_every", "tensorboard", "wandb", "profile_steps")


class Sweep(Finished):
    """Trains and evaluates points; a study is a subclass, which has the abstract methods.

    It makes the ``points``, and the ``recipe`` by which each is trained. ``config.together``, if
    there is one, is how many seeds of a scheme are trained as one program. Points that are finished
    in ``workdir`` are not run again. A subclass has the ``title`` of its report.
    """

    title: str
    recipe: Recipe

    def __init__(self, config: ConfigDict, workdir: Path, console: Console):
        super().__init__(config.to_dict(), workdir)
        self.mesh, self.console = make_mesh(**config.mesh), console
        self.together = config.get("together", 1)

    # What a study says.

    @abc.abstractmethod
    def task(self, point: Point) -> Task:
        """Returns the task that a point is trained on."""

    @abc.abstractmethod
    def evaluate(self, point: Point, model: Transformer) -> dict[str, Any]:
        """Returns the results of evaluating a trained model, as values of JSON."""

    @abc.abstractmethod
    def print_point(self, point: Point, evaluation: dict[str, Any]) -> None:
        """Prints the results of a point."""

    @abc.abstractmethod
    def frame(self) -> pd.DataFrame:
        """Returns all that was measured as a tidy table, see ``results/table.py``."""

    @abc.abstractmethod
    def comparisons(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Returns comparisons of schemes, as ``comparisons.compared`` does, or an empty table."""

    @abc.abstractmethod
    def tables(self, frame: pd.DataFrame, comparisons: pd.DataFrame) -> list[Table]:
        """Returns the tables of the report; the first one is printed too."""

    @abc.abstractmethod
    def figures(self, frame: pd.DataFrame) -> dict[str, Figure]:
        """Returns the figures of the report, by file names without ending."""

    # What a study may say.

    def recipe_and_seed(self, point: Point) -> dict[str, Any]:
        """Returns the recipe and the seed of a point, for ``describe``."""
        return {"train": recipe_fields(self.recipe_of(point)), "seed": point.seed}

    def write_report(self, command: str) -> Path:
        """Prints the tables of all finished points, writes their report and returns its path."""
        return report.write(self, command)

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

    def start_of(self, point: Point) -> Point | None:
        """Returns the point whose model this one starts from; a subclass may have such points."""
        return None

    def needs(self, points: list[Point]) -> tuple[str, list[Point]] | None:
        """Returns the name of another sweep and its missing points that ``points`` need first."""
        return None

    @property
    def parts(self) -> dict[str, "Sweep"]:
        """Returns the sweeps that this one is made of, by their names: itself, without a name."""
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

    def groups(self, points: list[Point]) -> list[list[Point]]:
        """Returns the points that are trained as one program: some seeds of one scheme each."""
        groups: dict[tuple[int, str], list[Point]] = {}
        for point in points:
            groups.setdefault((point.seed // self.together, point.group), []).append(point)
        return list(groups.values())

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
        )

    def train_together(self, group: list[Point]) -> dict[int, FloatingPointError]:
        """Trains points that are one program but for their seeds; see ``loop.train_together``."""
        return train_together(
            self.task(group[0]),
            self.recipe_of(group[0]),
            self.mesh,
            folders={point.seed: self.folder(point) for point in group},
            console=self.console,
            name=f"{group[0].group}, {len(group)} seeds  train",
            goal=self.goal(group[0]),
        )

    def evaluate_missing(self, point: Point, model: Transformer) -> dict[str, Any]:
        """Returns the results of a point, and evaluates only what it lacks."""
        before = self.finished(point)
        missing = missing_in(before, point)
        evaluation = self.evaluate(dataclasses.replace(point, extensions=missing), model)
        if before is None:
            return evaluation
        added = of_schemes(evaluation, missing)
        return before | {key: before[key] + records for key, records in added.items()}


def recipe_fields(recipe: Recipe) -> dict[str, Any]:
    """Returns the fields of a recipe that decide what is computed."""
    fields = dataclasses.asdict(recipe)
    if recipe.products == "float32":
        del fields["products"]  # runs that are older than this field were computed so
    return {key: value for key, value in fields.items() if key not in _FREE_TO_CHANGE}
