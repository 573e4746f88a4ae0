"""Defines what a study is to the programs that run it: points, and what is done with each.

A *point* is one trained scheme and one seed, with a folder of its own. Schemes that extend a
trained one are evaluated on its checkpoint, each with its encoding instead of the trained one.
"""

import abc
import collections
import dataclasses
import datetime
import math
from pathlib import Path
from types import ModuleType
from typing import Any

from jax.sharding import Mesh
from rich.console import Console

from experiments.results.bucket import is_in_bucket
from experiments.results.record import (
    RefusedError,
    agreed,
    as_json,
    each_once,
    environment_of,
    read_json,
    read_lines,
    read_run,
)
from experiments.results.seal import read_whole_evaluation
from experiments.results.speedup import with_speedups
from experiments.results.statistics import BASELINE, Study
from experiments.running.points import Point, point_of
from experiments.running.schedule import Schedule
from experiments.training.data import Corpus
from experiments.training.loop import abstract_state, train, train_together
from experiments.training.mesh import part_of_process, row_shards
from experiments.training.recipe import RULES, Goal, Recipe
from experiments.training.step import Task
from posenc_jax import Transformer
from posenc_jax.model.transformer import ROWS

# The name that a config has for the digest of its data.
DATA = "corpus_digest"
# The fields that ``evaluation.json`` must have in every experiment.
EVALUATION = {"config": dict, "training": dict}
# The fields that may change between two starts of the same run: they do not change its results.
_FREE_TO_CHANGE = ("log_every", "checkpoint_every", "tensorboard", "wandb", "profile_steps")


class Sweep(abc.ABC):
    """Trains and evaluates points; a study is a subclass, which has the abstract methods.

    Args:
      config: the whole config, for the report. ``together``, where it has one, is how many seeds of
        a scheme are trained as one program.
      points: the points to run.
      recipe: how each is trained.
      mesh: the devices.
      workdir: the folder of all results; points that are finished there are not run again.
      console: the console that shows progress and tables.

    Attributes:
      report: the module of ``results.reports`` that prints and writes ``study``; a subclass has
        one, or another ``write_report``.
    """

    report: ModuleType

    def __init__(
        self,
        config: dict[str, Any],
        points: list[Point],
        recipe: Recipe,
        mesh: Mesh,
        workdir: Path,
        console: Console,
    ):
        self.config = config
        self.points = points
        self.recipe = recipe
        self.mesh = mesh
        self.workdir = workdir
        self.console = console
        self.together = config.get("together", 1)

    # What a study says.

    @abc.abstractmethod
    def task(self, point: Point) -> Task:
        """Returns the task that a point is trained on."""

    @abc.abstractmethod
    def describe_evaluation(self, point: Point) -> dict[str, Any]:
        """Returns all settings that decide the results of ``evaluate``."""

    @abc.abstractmethod
    def evaluate(self, point: Point, model: Transformer) -> dict[str, Any]:
        """Returns the results of evaluating a trained model, as values of JSON."""

    @abc.abstractmethod
    def print_point(self, point: Point, evaluation: dict[str, Any]) -> None:
        """Prints the results of a point."""

    @abc.abstractmethod
    def study(self, command: str) -> Study:
        """Returns all results so far, for reports."""

    # What a study may say.

    def describe(self, point: Point) -> dict[str, Any]:
        """Returns all settings that decide what is trained."""
        how = {"train": recipe_fields(self.recipe_of(point)), "seed": point.seed}
        return self.describe_training(point.scheme) | how

    def describe_training(self, scheme: str) -> dict[str, Any]:
        """Returns all settings that decide what is trained, except the recipe and the seed.

        A subclass has this method, or another ``describe``.
        """
        raise NotImplementedError

    def write_report(self, command: str) -> Path:
        """Prints the tables of all finished points, writes their report and returns its path."""
        study = self.study(command)
        self.report.print_tables(study, self.console)
        return self.report.write(self.workdir, study)

    def goal(self, point: Point) -> Goal | None:
        """Returns when the training of a point may end early, or None for never."""
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

    @property
    def parts(self) -> dict[str, "Sweep"]:
        """Returns the sweeps that this one is made of, by their names: itself, without a name."""
        return {"": self}

    # How its points are run.

    def check(self) -> None:
        """Raises a ValueError if a batch or a model does not fit the mesh."""
        self.check_recipe(self.recipe)
        for point in {point.scheme: point for point in self.points}.values():
            abstract_state(self.task(point), self.recipe, self.mesh)

    def place_on(self, mesh: Mesh) -> None:
        """Takes another mesh, such as one of chips to compile for, and checks as ``check``."""
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

    def run(self, task_id: int | None = None, share: bool = False) -> list[dict]:
        """Runs all points, or the one numbered ``task_id``; returns the failures.

        With ``share`` other programs may run the same points in the same workdir; each skips the
        points that another program has begun. Programs that have one core each share the seeds of
        the last scheme one by one, so that they end at about the same time. A point that starts
        from the model of another point waits while another program trains that model. A job of an
        array, which has a ``task_id``, first trains the point that its own starts from, if no
        program does, because the job may begin before that point's own job.
        """
        chosen = self.points if task_id is None else [point_of(self.points, task_id)]
        self._check_data(chosen)
        schedule = Schedule(self, chosen, share=share, is_job=task_id is not None)
        schedule.run()
        return schedule.failures

    def groups(self, points: list[Point]) -> list[list[Point]]:
        """Returns the points that are trained as one program: some seeds of one scheme each."""
        groups: dict[tuple[int, str], list[Point]] = {}
        for point in points:
            groups.setdefault((point.seed // self.together, point.group), []).append(point)
        return list(groups.values())

    def train(self, point: Point) -> tuple[Transformer, dict[str, Any]]:
        """Trains a point in its folder, from its newest checkpoint; returns as ``loop.train``."""
        return train(
            self.task(point),
            self.recipe_of(point),
            self.mesh,
            seed=point.seed,
            folder=self.folder(point),
            console=self.console,
            name=f"{point.name}  train",
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
        added = _of_schemes(evaluation, missing)
        return before | {key: before[key] + records for key, records in added.items()}

    # What its points have left in the workdir.

    def folder(self, point: Point) -> Path:
        """Returns the folder of a point's run."""
        return self.workdir / "runs" / point.name

    def finished(self, point: Point) -> dict[str, Any] | None:
        """Returns the results of a point, or None if it has none under this config.

        The results may lack extensions that the config asks for by now, see ``missing_in``. They
        may be of other data with the same name, such as the sources of another Python;
        ``corpus_digest`` shows that, and ``run`` refuses to add to them.
        """
        folder = self.folder(point)
        try:
            evaluation, run = read_whole_evaluation(folder, EVALUATION), read_run(folder)
            if evaluation is None or run is None:
                return None
            evaluated = dataclasses.replace(point, extensions=extensions_in(evaluation, point))
            if "extend" in evaluation["config"]:  # without extensions that are not asked for
                old = evaluation["config"]["extend"]
                extend = {name: old[name] for name in evaluated.extensions}
                evaluation |= _of_schemes(evaluation, evaluated.schemes)
                evaluation["config"] = evaluation["config"] | {"extend": extend}
            configs = (evaluation, self.describe_evaluation(evaluated)), (run, self.describe(point))
            same = all(_but_for_data(old["config"]) == _but_for_data(new) for old, new in configs)
            return evaluation if same else None
        except ValueError:  # a damaged file, or the point that this one starts from is missing
            return None

    def is_done(self, point: Point) -> bool:
        """Returns whether nothing is left to run: missing extensions need the point's checkpoint.

        Results that were restored from an archive have no checkpoints, and stay as they are.
        """
        if not (finished := self.finished(point)):
            return False
        has_checkpoint = agreed((self.folder(point) / "checkpoints").exists)
        return not (has_checkpoint and missing_in(finished, point))

    def failure(self, point: Point) -> dict[str, Any] | None:
        """Returns the scheme and the seed of a point that failed and the reason, or None."""
        try:
            record = read_json(self.folder(point) / "failure.json", {"reason": str})
        except ValueError as error:  # it is damaged, and says that there was a failure
            record = {"reason": str(error)}
        return record and {"scheme": point.label, "seed": point.seed, "reason": record["reason"]}

    def _check_data(self, points) -> None:
        """Raises a ValueError if a finished run was trained on other data of the same name."""
        for point in points:
            if not self.finished(point):
                continue
            run, here = read_run(self.folder(point)), self.describe(point).get(DATA)
            if run is not None and run["config"].get(DATA) != here:
                raise RefusedError(
                    f"{self.folder(point)} was trained on other data of the same name: digest "
                    f"{run['config'].get(DATA)}, and here it is {here}. Where it is the sources of "
                    f"Python, go on with Python {run['versions'].get('python')}, or give another "
                    "--workdir; --report shows what is there"
                )

    # What reports take from that.

    def results(self) -> tuple[list[dict], list[dict], list[dict]]:
        """Returns evaluations of all finished points, the costs of training, and the failures.

        Each cost has ``scheme``, and ``trained``, the scheme of its checkpoint; and the speed-up of
        the scheme, if the baseline was trained too. If several learning rates were tried, the
        results of a scheme are from its best one.
        """
        evaluations, training, failures, curves = [], [], [], {}
        rates = self.rates()
        best = {label: min(losses, key=losses.__getitem__) for label, losses in rates.items()}
        chosen = [point for point in self.points if point.rate == best.get(point.label)]
        has_baseline = any(point.label == BASELINE for point in chosen)
        for point in chosen:
            if finished := self.finished(point):
                evaluations.append(finished)
                if has_baseline:
                    curves[point.label, point.seed] = self.curve(point)
                for scheme in (point.label, *extensions_in(finished, point)):
                    trained = {"scheme": scheme, "trained": point.label}
                    training.append(finished["training"] | trained)
            elif failure := self.failure(point):
                failures.append(failure)
        return evaluations, with_speedups(training, curves), failures

    def rates(self) -> dict[str, dict[float, float]]:
        """Returns the final training loss of each scheme, by the learning rate.

        The loss is the mean over seeds, and over the last tenth of the logged steps. It is infinite
        if a seed is not finished, or has lost its lines.
        """
        labels = dict.fromkeys(point.label for point in self.points if point.rate is not None)
        return {label: self.rates_of(label) for label in labels}

    def rates_of(self, label: str) -> dict[float, float]:
        """Returns the final training loss of one scheme, by the learning rate; see ``rates``."""
        losses = collections.defaultdict(list)
        for point in self.points:
            if point.label == label and point.rate is not None:
                losses[point.rate].append(self._final_loss(point))
        return {rate: sum(of_seeds) / len(of_seeds) for rate, of_seeds in losses.items()}

    def _final_loss(self, point: Point) -> float:
        losses = [loss for _, loss in self.curve(point)] if self.finished(point) else []
        last = losses[-max(1, len(losses) // 10) :]
        return sum(last) / len(last) if last else math.inf

    def curve(self, point: Point) -> list[tuple[int, float]]:
        """Returns the training loss of a point at each step that was logged."""
        lines = read_lines(self.folder(point) / "metrics.jsonl")
        return [(line["step"], line["loss"]) for line in lines]

    def about(self, command: str) -> dict[str, Any]:
        """Returns what every report says about how its results were made."""
        return environment_of(self.finished_runs()) | {
            "rates": self.rates(),
            "command": command,
            "config": as_json(self.config),
            "date": datetime.date.today().isoformat(),
            "rules": RULES,
        }

    def finished_runs(self) -> list[dict[str, Any]]:
        """Returns the ``run.json`` of each finished run, which says where it was trained."""
        done = filter(self.finished, self.points)
        return [run for point in done if (run := read_run(self.folder(point))) is not None]

    def about_corpus(self, corpus: Corpus) -> dict[str, str]:
        """Returns what reports say about the corpus.

        The digests are of the data of all finished runs; without any, of the data here.
        """
        digests = [run["config"].get(DATA) for run in self.finished_runs()]
        return corpus.described | {DATA: each_once(filter(None, digests)) or corpus.digest}

    def holes(self) -> list[str]:
        """Returns a line for each finished point that lacks extensions of the config."""
        finished = [(point, result) for point in self.points if (result := self.finished(point))]
        return [
            f"{point.name} lacks {', '.join(missing)}"
            for point, result in finished
            if (missing := missing_in(result, point))
        ]


def extensions_in(evaluation: dict[str, Any], point: Point) -> tuple[str, ...]:
    """Returns those extensions of a point that an evaluation has been made for."""
    made = evaluation["config"].get("extend", point.extensions)
    return tuple(name for name in point.extensions if name in made)


def missing_in(finished: dict[str, Any] | None, point: Point) -> tuple[str, ...]:
    """Returns the extensions of a point that its results lack; all where there are no results."""
    has = extensions_in(finished, point) if finished else ()
    return tuple(name for name in point.extensions if name not in has)


def _of_schemes(evaluation: dict[str, Any], schemes: tuple[str, ...]) -> dict[str, Any]:
    """Returns the lists of an evaluation with the records of some schemes alone."""
    lists = {key: value for key, value in evaluation.items() if isinstance(value, list)}
    return {key: [r for r in records if r["scheme"] in schemes] for key, records in lists.items()}


def _but_for_data(config: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in as_json(config).items() if key != DATA}


def recipe_fields(recipe: Recipe) -> dict[str, Any]:
    """Returns the fields of a recipe that decide what is computed."""
    fields = dataclasses.asdict(recipe)
    if recipe.products == "float32":
        del fields["products"]  # runs that are older than this field were computed so
    return {key: value for key, value in fields.items() if key not in _FREE_TO_CHANGE}
