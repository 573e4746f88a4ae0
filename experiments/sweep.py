"""Trains every scheme under every seed once, across interruptions.

A *point* is one trained scheme and one seed, with a folder of its own. Schemes that extend a
trained one are evaluated on its checkpoint, each with its encoding instead of the trained one.
"""

import collections
import contextlib
import dataclasses
import datetime
import math
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh
from rich.console import Console

from experiments import preemption
from experiments.bucket import is_in_bucket
from experiments.data import Corpus
from experiments.loop import abstract_state, train, train_together
from experiments.mesh import own_part, row_shards
from experiments.point import Point, point_of
from experiments.preemption import PreemptedError
from experiments.progress import TimeLeft
from experiments.record import (
    OtherConfigError,
    RefusedError,
    as_json,
    check_sinks,
    claimed,
    each_once,
    environment_of,
    holder,
    open_run,
    read_json,
    read_lines,
    read_run,
    write_json,
)
from experiments.report.speedup import with_speedups
from experiments.report.study import BASELINE, Study
from experiments.train import RULES, Recipe, Task
from posenc_jax import Transformer
from posenc_jax.attention.cpu import has_one_core
from posenc_jax.model.transformer import ROWS

# The name that a config has for the digest of its data.
DATA = "corpus_digest"
# The fields that ``evaluation.json`` must have in every experiment.
EVALUATION = {"config": dict, "training": dict}
# The fields that may change between two starts of the same run: they do not change its results.
_FREE_TO_CHANGE = ("log_every", "checkpoint_every", "tensorboard", "wandb", "profile_steps")


class Sweep:
    """Trains and evaluates points; a subclass defines their tasks and evaluations.

    Args:
      config: the whole config, for the report. ``together``, where it has one, is how many seeds of
        a scheme are trained as one program.
      points: the points to run.
      recipe: how each is trained.
      mesh: the devices.
      workdir: the folder of all results; points that are finished there are not run again.
      console: the console that shows progress and tables.
    """

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
        if self.together < 1:
            raise ValueError(f"together={self.together} must be at least 1: seeds in one program")

    @property
    def parts(self) -> dict[str, "Sweep"]:
        """Returns the sweeps that this one is made of, by their names: itself, without a name."""
        return {"": self}

    def task(self, point: Point) -> Task:
        """Returns the task that a point is trained on."""
        raise NotImplementedError

    def describe_training(self, scheme: str) -> dict[str, Any]:
        """Returns all settings that decide what is trained, except the recipe and the seed."""
        raise NotImplementedError

    def recipe_of(self, point: Point) -> Recipe:
        """Returns the recipe of a point.

        A subclass may have other recipes for some points, and None for a model that is only read.
        """
        if point.rate is None:
            return self.recipe
        return dataclasses.replace(self.recipe, learning_rate=point.rate)

    def describe(self, point: Point) -> dict[str, Any]:
        """Returns all settings that decide what is trained."""
        how = {"train": recipe_fields(self.recipe_of(point)), "seed": point.seed}
        return self.describe_training(point.scheme) | how

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
        )

    def describe_evaluation(self, point: Point) -> dict[str, Any]:
        """Returns all settings that decide the results of ``evaluate``."""
        raise NotImplementedError

    def evaluate(self, point: Point, model: Transformer) -> dict[str, Any]:
        """Returns the results of evaluating a trained model, as values of JSON."""
        raise NotImplementedError

    def print_point(self, point: Point, evaluation: dict[str, Any]) -> None:
        """Prints the results of a point."""
        raise NotImplementedError

    def study(self, command: str) -> Study:
        """Returns all results so far, for reports."""
        raise NotImplementedError

    def write_report(self, command: str) -> Path:
        """Prints the tables of all finished points, writes their report and returns its path."""
        raise NotImplementedError

    def check(self) -> None:
        """Raises a ValueError if a batch or a model does not fit the mesh, or cannot work."""
        self.check_recipe(self.recipe)
        for point in {point.scheme: point for point in self.points}.values():
            state = abstract_state(self.task(point), self.recipe, self.mesh)
            self.check_model(point.scheme, state.model)

    def check_model(self, scheme: str, model: Transformer) -> None:
        """Raises a ValueError for a scheme that cannot work; a subclass may know of such.

        The model has shapes instead of its arrays.
        """

    def check_recipe(self, recipe: Recipe, name: str = "train") -> None:
        """Raises a ValueError if the recipe ``name`` does not fit the mesh or the workdir."""
        if is_in_bucket(self.workdir) and (recipe.tensorboard or recipe.profile_steps):
            raise ValueError(
                f"{name}.tensorboard and {name}.profile_steps write to a folder of this machine, "
                f"and {self.workdir} is in a bucket; leave them out, or give {name}.wandb"
            )
        own_part(self.mesh)
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
        chosen = self.points
        if task_id is not None:
            chosen = [point_of(self.points, task_id)]
        self._check_data(chosen)
        failures: list[dict] = []
        tried: set[Point] = set()
        waiting, left = {point for point in chosen if not self.finished(point)}, TimeLeft()
        if done := len(chosen) - len(waiting):
            self.console.print(f"{done} of {len(chosen)} were done before", highlight=False)
        for recipe in filter(None, map(self.recipe_of, waiting)):
            check_sinks(recipe.tensorboard, recipe.wandb)
        groups = collections.deque(self._groups(chosen))
        if share and self._has_one_core():
            groups.extend([point] for point in groups.pop())
        while groups:
            group = groups.popleft()
            if self._begins_elsewhere(group):
                if preemption.requested():
                    raise PreemptedError("asked to stop while another program trains: run again")
                groups.append(group)
                time.sleep(1.0)
                continue
            starts = self._unfinished_starts(group)
            if task_id is not None and not tried.issuperset(starts):
                groups.extendleft([group, starts])
                continue
            is_shared = share or (task_id is not None and self._is_start(group))
            with self._taken(group) if is_shared else contextlib.nullcontext(True) as is_ours:
                failed = self._train_together(group) if is_ours else {}
                for point in group:
                    if is_ours and not self.finished(point):
                        count = len(chosen) - len(waiting) + 1
                        place = f"{count}/{len(chosen)}{left.words(len(waiting))}"
                        self.console.print(f"[{place}] {point.name}", highlight=False)
                    if is_ours:
                        tried.add(point)
                        failures += self._try_point(point, failed.get(point))
                    if point in waiting:
                        waiting.remove(point)
                        left.count()
        return failures

    def start_of(self, point: Point) -> Point | None:
        """Returns the point whose model this one starts from; a subclass may have such points."""
        del point
        return None

    def _unfinished_starts(self, group) -> list[Point]:
        """Returns the unfinished points whose models the points of a group start from."""
        starts = [start for point in group if (start := self.start_of(point)) is not None]
        return [start for start in starts if not self.finished(start)]

    def _is_start(self, group) -> bool:
        """Says whether another point starts from one of a group."""
        return any(self.start_of(point) in group for point in self.points)

    def _begins_elsewhere(self, group) -> bool:
        """Says whether another program works on a point that the points of a group start from."""
        starts = self._unfinished_starts(group)
        folders = [folder(start) for start in starts for folder in (self._shared, self.folder)]
        return any(holder(folder) is not None for folder in folders)

    def _shared(self, point) -> Path:
        """Returns the folder of the lock that keeps a point for one of several programs."""
        return self.workdir / "shared" / point.name

    def group_of(self, point: Point) -> list[Point]:
        """Returns the points that are trained as one program with this one, itself among them."""
        return next(group for group in self._groups(self.points) if point in group)

    @contextlib.contextmanager
    def _taken(self, group) -> Iterator[bool]:
        """Locks a group for this program, and yields whether no other program works on it."""
        with contextlib.ExitStack() as stack:
            try:
                for point in group:
                    stack.enter_context(claimed(self._shared(point)))
            except ValueError:  # another program has it
                yield False
            else:
                # A program without ``share`` has locked only the points.
                yield not any(holder(self.folder(point)) for point in group)

    def _try_point(self, point, error) -> list[dict]:
        """Runs a point, unless its training gave an ``error``; returns its failure, if any."""
        try:
            if error is not None:
                raise error
            with claimed(self.folder(point)):
                self._run_point(point)
        except PreemptedError:
            raise
        except Exception as error:  # one scheme failing must not take the others with it
            _raise_alone(error)
            return [self._failed(point, error)]
        return []

    def results(self) -> tuple[list[dict], list[dict], list[dict]]:
        """Returns evaluations of all finished points, the costs of training, and the failures.

        Each cost has ``scheme``, and ``trained``, the scheme of its checkpoint; and the speed-up of
        the scheme, if the baseline was trained too. If several learning rates were tried, the
        results of a scheme are those of its best one.
        """
        evaluations, training, failures, curves = [], [], [], {}
        chosen = self._at_best_rates()
        has_baseline = any(point.label == BASELINE for point in chosen)
        for point in chosen:
            folder = self.folder(point)
            if finished := self.finished(point):
                evaluations.append(finished)
                if has_baseline:
                    lines = read_lines(folder / "metrics.jsonl")
                    curves[point.label, point.seed] = [(li["step"], li["loss"]) for li in lines]
                for scheme in (point.label, *point.extensions):
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
        losses: dict[str, dict[float, list[float]]] = {}
        for point in self.points:
            if point.rate is not None:
                by_rate = losses.setdefault(point.label, {})
                by_rate.setdefault(point.rate, []).append(self._last_loss(point))
        return {
            label: {rate: sum(each) / len(each) for rate, each in by_rate.items()}
            for label, by_rate in losses.items()
        }

    def _last_loss(self, point) -> float:
        if not self.finished(point):
            return math.inf
        losses = [line["loss"] for line in read_lines(self.folder(point) / "metrics.jsonl")]
        last = losses[-max(1, len(losses) // 10) :]
        return sum(last) / len(last) if last else math.inf

    def _at_best_rates(self) -> list[Point]:
        """Returns the points; of a scheme with several learning rates, those at the best one."""
        best = {
            label: min(losses, key=losses.__getitem__) for label, losses in self.rates().items()
        }
        return [point for point in self.points if point.rate == best.get(point.label)]

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
        done = [point for point in self.points if self.finished(point)]
        runs = (read_run(self.folder(point)) for point in done)
        return [run for run in runs if run is not None]

    def folder(self, point: Point) -> Path:
        """Returns the folder of a point's run."""
        return self.workdir / "runs" / point.name

    def _groups(self, points) -> list[list[Point]]:
        """Returns the points that are trained as one program: some seeds of one scheme each."""
        groups: dict[tuple[int, str], list[Point]] = {}
        for point in points:
            groups.setdefault((point.seed // self.together, point.group), []).append(point)
        return list(groups.values())

    def _train_together(self, group) -> dict[Point, Exception]:
        """Trains the points of a group as one program; returns errors of points with bad numbers.

        The other points are then trained in their folders. If the group cannot be one program,
        nothing is returned, and each point is trained alone later and reports its own error. One
        core is busy with one point, so there each is trained alone too.
        """
        group = [point for point in group if not self.finished(point)]
        if len(group) < 2 or self._has_one_core():
            return {}
        try:
            with contextlib.ExitStack() as stack:
                for point in group:
                    stack.enter_context(claimed(self.folder(point)))
                    open_run(self.folder(point), self.describe(point))
                    self._forget_failure(point)
                failures = train_together(
                    self.task(group[0]),
                    self.recipe_of(group[0]),
                    self.mesh,
                    folders={point.seed: self.folder(point) for point in group},
                    console=self.console,
                    name=f"{group[0].group}, {len(group)} seeds  train",
                )
        except PreemptedError:
            raise
        except Exception as error:
            _raise_alone(error)
            self.console.print(
                f"{group[0].group}: {len(group)} seeds apart, for together they gave "
                f"{type(error).__name__}: {error}",
                highlight=False,
                markup=False,
            )
            return {}
        return {point: failures[point.seed] for point in group if point.seed in failures}

    def _has_one_core(self) -> bool:
        return self.mesh.devices.flat[0].platform == "cpu" and has_one_core()

    def finished(self, point: Point) -> dict[str, Any] | None:
        """Returns the results of a point, or None if it has none under this config.

        Results may be of other data with the same name, such as the sources of another Python.
        ``corpus_digest`` shows that, and ``run`` refuses to add to them.
        """
        folder = self.folder(point)
        try:
            found, run = read_json(folder / "evaluation.json", EVALUATION), read_run(folder)
            if found is None or run is None:
                return None
            found = _of_schemes(found, point.schemes)
            configs = (found, self.describe_evaluation(point)), (run, self.describe(point))
            same = all(_but_for_data(old["config"]) == _but_for_data(new) for old, new in configs)
            return found if same else None
        except ValueError:  # a damaged file, or the point that this one starts from is missing
            return None

    def failure(self, point: Point) -> dict[str, Any] | None:
        """Returns the scheme and the seed of a point that failed and the reason, or None."""
        try:
            found = read_json(self.folder(point) / "failure.json", {"reason": str})
        except ValueError as error:  # it is damaged, and says that there was a failure
            found = {"reason": str(error)}
        return found and {"scheme": point.label, "seed": point.seed, "reason": found["reason"]}

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

    def about_corpus(self, corpus: Corpus) -> dict[str, str]:
        """Returns what reports say about the corpus.

        The digests are those of the data of all finished runs, or that of the data here for none.
        """
        found = [run["config"].get(DATA) for run in self.finished_runs()]
        return corpus.described | {DATA: each_once(filter(None, found)) or corpus.digest}

    def _run_point(self, point):
        folder = self.folder(point)
        open_run(folder, self.describe(point))
        if self.finished(point):
            return
        self._forget_failure(point)
        model, summary = self.train(point)
        evaluation = {
            "config": as_json(self.describe_evaluation(point)),
            **self.evaluate(point, model),
            "training": {"scheme": point.label, "seed": point.seed} | summary,
        }
        write_json(folder / "evaluation.json", evaluation)
        if summary["tokens"]:
            speed = summary["tokens"] / summary["seconds"]
            about = best_note(summary, folder)
            self.console.print(
                f"  trained in {summary['seconds']:.1f} s, {speed:,.0f} tokens/s"
                + (f"; {about}" if about else ""),
                highlight=False,
            )
        self.print_point(point, evaluation)

    def _forget_failure(self, point) -> None:
        """Removes the record of a point's failure when the point is tried again."""
        (self.folder(point) / "failure.json").unlink(missing_ok=True)

    def _failed(self, point, error) -> dict:
        reason = f"{type(error).__name__}: {error}"
        failure = {"scheme": point.label, "seed": point.seed, "reason": reason}
        self.console.print(f"  FAILED {reason}", style="bold red", highlight=False, markup=False)
        folder = self.folder(point)
        # The folder itself may have failed; then only the terminal has the reason. A point that
        # another program works on has not failed, nor has the run of another config in the folder.
        with contextlib.suppress(OSError):
            if holder(folder) is None and not isinstance(error, OtherConfigError):
                write_json(folder / "failure.json", failure | {"traceback": traceback.format_exc()})
        return failure


def _of_schemes(found: dict[str, Any], schemes: tuple[str, ...]) -> dict[str, Any]:
    """Returns an evaluation without the extensions that are not asked for, if it has such."""
    if "extend" not in found["config"]:
        return found
    extend = {name: each for name, each in found["config"]["extend"].items() if name in schemes}
    lists = {
        key: [each for each in value if each["scheme"] in schemes]
        for key, value in found.items()
        if isinstance(value, list)
    }
    return found | lists | {"config": found["config"] | {"extend": extend}}


def _raise_alone(error: Exception) -> None:
    """Raises an error that one of several processes may have alone, as the others wait for it."""
    # A disk may fail only for the process that writes; numbers of training are the same in all.
    is_of_all = isinstance(error, FloatingPointError | RefusedError)
    if jax.process_count() > 1 and not is_of_all:
        raise error


def _but_for_data(config: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in as_json(config).items() if key != DATA}


def best_note(training: dict[str, Any], folder: Path) -> str:
    """Says where the best checkpoint of a finished run is, if it is not the last one."""
    best = training.get("best_step")
    is_last = best in (None, training.get("steps"))
    return "" if is_last else f"lowest mean loss after step {best}: {folder / 'best'}"


def recipe_fields(recipe: Recipe) -> dict[str, Any]:
    """Returns the fields of a recipe that decide what is computed."""
    fields = dataclasses.asdict(recipe)
    return {key: value for key, value in fields.items() if key not in _FREE_TO_CHANGE}
