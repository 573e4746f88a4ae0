"""Trains every scheme under every seed, each once, whatever stops the program.

A *point* is one trained scheme and one seed, with a folder of its own. Schemes that extend a
trained one are evaluated on its checkpoint, each with its encoding in the place of the trained one.
"""

import collections
import contextlib
import dataclasses
import datetime
import functools
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
from experiments.loop import train, train_together
from experiments.mesh import own_part, row_shards, state_shardings
from experiments.point import Point, point_of
from experiments.preemption import PreemptedError
from experiments.progress import TimeLeft
from experiments.record import (
    RefusedError,
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
from experiments.train import RULES, Recipe, Task, initial_state
from posenc_jax import Transformer
from posenc_jax.model.transformer import ROWS

# The name that a config has for the digest of its data.
DATA = "corpus_digest"
# What ``evaluation.json`` must have, whatever the experiment.
EVALUATION = {"config": dict, "training": dict}
# What may change between two starts of the same run: it decides when, not what, is computed.
_FREE_TO_CHANGE = ("log_every", "checkpoint_every", "tensorboard", "wandb", "profile_steps")


class Sweep:
    """Runs points that were checked; a subclass says what a point is made of.

    Args:
      config: the whole config, for the report. ``together``, where it has one, is how many seeds of
        a scheme are trained as one program.
      points: the points to run.
      recipe: how each is trained.
      mesh: the devices.
      workdir: the folder of everything; what is already there and finished is not done again.
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

    def task(self, scheme: str) -> Task:
        """Returns the task that a point of ``scheme`` is trained on."""
        raise NotImplementedError

    def describe_training(self, scheme: str) -> dict[str, Any]:
        """Returns all that decides what is trained, but for the recipe and the seed."""
        raise NotImplementedError

    def recipe_of(self, point: Point) -> Recipe:
        """Returns how a point is trained; a subclass may train some in another way."""
        if point.rate is None:
            return self.recipe
        return dataclasses.replace(self.recipe, learning_rate=point.rate)

    def describe(self, point: Point) -> dict[str, Any]:
        """Returns all that decides what is trained."""
        how = {"train": recipe_fields(self.recipe_of(point)), "seed": point.seed}
        return self.describe_training(point.scheme) | how

    def train(self, point: Point) -> tuple[Transformer, dict[str, Any]]:
        """Trains a point in its folder, from where it was; returns what ``train`` does."""
        return train(
            self.task(point.scheme),
            self.recipe_of(point),
            self.mesh,
            seed=point.seed,
            folder=self.folder(point),
            console=self.console,
            name=f"{point.name}  train",
        )

    def describe_evaluation(self, point: Point) -> dict[str, Any]:
        """Returns all that decides what ``evaluate`` finds in a trained model."""
        raise NotImplementedError

    def evaluate(self, point: Point, model: Transformer) -> dict[str, Any]:
        """Returns what is found in a trained model, as JSON takes it."""
        raise NotImplementedError

    def print_point(self, point: Point, evaluation: dict[str, Any]) -> None:
        """Prints what was found."""
        raise NotImplementedError

    def study(self, command: str) -> Study:
        """Returns all results so far, for reports."""
        raise NotImplementedError

    def write_report(self, command: str) -> Path:
        """Prints the tables of all finished points, writes their report and returns its path."""
        raise NotImplementedError

    def check(self) -> None:
        """Refuses a batch or a model that does not fit the mesh."""
        self.check_recipe(self.recipe)
        for scheme in dict.fromkeys(point.scheme for point in self.points):
            init = functools.partial(initial_state, init=self.task(scheme).init, recipe=self.recipe)
            state_shardings(jax.eval_shape(init, jax.random.key(0)), self.mesh)

    def check_recipe(self, recipe: Recipe, name: str = "train") -> None:
        """Refuses what does not fit the mesh or the workdir; ``name`` is the recipe's."""
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

        With ``share`` another program may be doing the same in the same workdir: each leaves to the
        other whatever the other has begun. A point that starts from what another program is
        training waits for it. A job of an array, which has a ``task_id``, trains first what its
        point starts from, if nobody does: it may begin before the job that would, and outlive it.
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
        """Returns what the points of a group start from and nobody has finished."""
        starts = [start for point in group if (start := self.start_of(point)) is not None]
        return [start for start in starts if not self.finished(start)]

    def _is_start(self, group) -> bool:
        """Says whether another point starts from one of a group."""
        return any(self.start_of(point) in group for point in self.points)

    def _begins_elsewhere(self, group) -> bool:
        """Says whether another program has begun what the points of a group start from."""
        starts = self._unfinished_starts(group)
        folders = [folder(start) for start in starts for folder in (self._shared, self.folder)]
        return any(holder(folder) is not None for folder in folders)

    def _shared(self, point) -> Path:
        """Returns the folder of the lock of a point's group."""
        return self.workdir / "shared" / self.group_of(point)[0].name

    def group_of(self, point: Point) -> list[Point]:
        """Returns the points that are trained as one program with this one, itself among them."""
        return next(group for group in self._groups(self.points) if point in group)

    @contextlib.contextmanager
    def _taken(self, group) -> Iterator[bool]:
        """Holds a group against other programs, and says whether none of them has it."""
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(claimed(self._shared(group[0])))
            except ValueError:  # another program has it
                yield False
            else:
                # One that does not share has taken the points alone.
                yield not any(holder(self.folder(point)) for point in group)

    def _try_point(self, point, error) -> list[dict]:
        """Runs a point, whose training gave an error or none; returns its failure, if any."""
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
        """Returns evaluations of all finished points, what training cost, and the failures.

        Each cost has ``scheme``, and ``trained``, the scheme of its checkpoint; and what the scheme
        saves, where the baseline was trained too. Where several learning rates were tried, the
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
        """Returns the loss that each scheme came to in training, by the learning rate.

        The loss is the mean over seeds, and over the last tenth of the logged steps. It is infinite
        where a seed is not finished.
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
        return sum(last) / len(last)

    def _at_best_rates(self) -> list[Point]:
        """Returns the points, each scheme's at its best learning rate where several were tried."""
        best = {
            label: min(losses, key=losses.__getitem__) for label, losses in self.rates().items()
        }
        return [point for point in self.points if point.rate == best.get(point.label)]

    def about(self, command: str) -> dict[str, Any]:
        """Returns what every report says of how its results came about."""
        return environment_of(self.finished_runs()) | {
            "rates": self.rates(),
            "command": command,
            "config": plain(self.config),
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
        """Trains the points of a group as one program, and returns those whose numbers failed.

        Each is then found trained in its folder. Where they cannot be one program, every point is
        left to be trained alone, and to say by itself what is wrong with it.
        """
        group = [point for point in group if not self.finished(point)]
        if len(group) < 2:
            return {}
        try:
            with contextlib.ExitStack() as stack:
                for point in group:
                    stack.enter_context(claimed(self.folder(point)))
                    open_run(self.folder(point), self.describe(point))
                    self._forget_failure(point)
                failures = train_together(
                    self.task(group[0].scheme),
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

    def finished(self, point: Point) -> dict[str, Any] | None:
        """Returns what was found in a point, or None where that is not known under this config.

        It may be known of other data under the same name, as the sources of another Python are;
        ``corpus_digest`` says so, and ``run`` adds nothing to it.
        """
        folder = self.folder(point)
        try:
            found, run = read_json(folder / "evaluation.json", EVALUATION), read_run(folder)
            if found is None or run is None:
                return None
            configs = (found, self.describe_evaluation(point)), (run, self.describe(point))
            same = all(_but_for_data(old["config"]) == _but_for_data(new) for old, new in configs)
            return found if same else None
        except ValueError:  # damaged, and found again; or what it starts from is not there
            return None

    def failure(self, point: Point) -> dict[str, Any] | None:
        """Returns the scheme and the seed of a point that failed and the reason, or None."""
        try:
            found = read_json(self.folder(point) / "failure.json", {"reason": str})
        except ValueError as error:  # it is damaged, and says that there was a failure
            found = {"reason": str(error)}
        return found and {"scheme": point.label, "seed": point.seed, "reason": found["reason"]}

    def _check_data(self, points) -> None:
        """Refuses to go on with runs that were trained on other data of the same name."""
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

    def corpus_digest(self, here: str) -> str:
        """Returns the digests of the data of all finished runs, or of the data here for none."""
        found = [run["config"].get(DATA) for run in self.finished_runs()]
        return each_once(filter(None, found)) or here

    def _run_point(self, point):
        folder = self.folder(point)
        open_run(folder, self.describe(point))
        if self.finished(point):
            return
        self._forget_failure(point)
        model, summary = self.train(point)
        evaluation = {
            "config": plain(self.describe_evaluation(point)),
            **self.evaluate(point, model),
            "training": {"scheme": point.label, "seed": point.seed} | summary,
        }
        write_json(folder / "evaluation.json", evaluation)
        if summary["tokens"]:
            speed = summary["tokens"] / summary["seconds"]
            self.console.print(
                f"  trained in {summary['seconds']:.1f} s, {speed / 1e3:.0f}k tokens/s",
                highlight=False,
            )
        self.print_point(point, evaluation)

    def _forget_failure(self, point) -> None:
        """Forgets why a point failed, when it is tried again: another thing may stop it now."""
        (self.folder(point) / "failure.json").unlink(missing_ok=True)

    def _failed(self, point, error) -> dict:
        reason = f"{type(error).__name__}: {error}"
        failure = {"scheme": point.label, "seed": point.seed, "reason": reason}
        self.console.print(f"  FAILED {reason}", style="bold red", highlight=False, markup=False)
        folder = self.folder(point)
        # The folder may be what failed; the sentence above is on the terminal. What another program
        # is at work on has not failed.
        with contextlib.suppress(OSError):
            if holder(folder) is None:
                write_json(folder / "failure.json", failure | {"traceback": traceback.format_exc()})
        return failure


def _raise_alone(error: Exception) -> None:
    """Raises what one process of several may have met alone, for which the others may wait."""
    # Numbers of training are the same in all. A disk may fail under the one process that writes.
    is_of_all = isinstance(error, FloatingPointError | RefusedError)
    if jax.process_count() > 1 and not is_of_all:
        raise error


def _but_for_data(config: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in plain(config).items() if key != DATA}


def recipe_fields(recipe: Recipe) -> dict[str, Any]:
    """Returns the fields of a recipe that decide what is computed."""
    fields = dataclasses.asdict(recipe)
    return {key: value for key, value in fields.items() if key not in _FREE_TO_CHANGE}


def plain(value: Any) -> Any:
    """Returns ``value`` as JSON will give it back, with tuples as lists."""
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    return [plain(each) for each in value] if isinstance(value, (list, tuple)) else value
