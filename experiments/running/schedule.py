"""Runs points, seeds of one scheme as one program, beside other programs; see ``run_points``."""

import collections
import contextlib
import datetime
import time
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path

import jax

from experiments import preemption
from experiments.preemption import PreemptedError
from experiments.results.environment import environment
from experiments.results.locks import claimed, holder
from experiments.results.metrics import check_sinks
from experiments.results.record import (
    OtherConfigError,
    RefusedError,
    agreed,
    as_json,
    check_writable,
    open_run,
    read_json,
    write_json,
)
from experiments.results.seal import check_metrics, write_evaluation
from experiments.running import workers
from experiments.running.points import Point
from experiments.running.sweep import Sweep
from posenc_jax.attention.cpu import has_one_core


def run_points(
    parts: Mapping[str, Sweep], task_id: int | None = None, share: bool = False
) -> list[dict]:
    """Runs all points of the sweeps of an experiment, one after the other; returns the failures.

    With ``task_id`` only the point of this number, among those of all sweeps, is run. With
    ``share`` other programs may run the same points in the same workdir; each skips the points
    that another program has begun. Programs that have one core each share the seeds of the last
    scheme one by one, so that they end at about the same time. A point that starts from the model
    of another point waits while another program trains that model. A job of an array, which has a
    ``task_id``, first trains the point that its own starts from, if no program does, because the
    job may begin before that point's own job. A sweep, or a job of an array, may need points of
    another sweep: it waits for those that a program runs, and runs the others itself.
    """
    chosen = {name: sweep.points for name, sweep in parts.items()}
    shared = {*parts} if share else set()
    if task_id is not None:
        numbered = [(name, point) for name, points in chosen.items() for point in points]
        if not 0 <= task_id < len(numbered):
            last = len(numbered) - 1
            raise RefusedError(f"task_id={task_id} must be in 0..{last}, the number of a point")
        name, point = numbered[task_id]
        chosen = {name: [point]}
        # Jobs may run points of these sweeps that have jobs of their own.
        shared |= {need[0] for part in parts.values() if (need := part.needs(part.points))}
    failures: list[dict] = []
    tried: dict[str, set[Point]] = {name: set() for name in parts}

    def run(name, points):
        sweep = parts[name]
        check_writable(sweep.workdir)  # here, because else each of the points would fail of it
        sweep.check_data(points)
        schedule = Schedule(sweep, points, share=name in shared, is_job=task_id is not None)
        schedule.run()
        tried[name] |= schedule.tried
        of = f"{name}: " if name else ""
        failures.extend(f | {"scheme": of + f["scheme"]} for f in schedule.failures)

    for name, points in chosen.items():
        sweep = parts[name]
        if name:
            sweep.console.rule(f"{name}, {len(sweep.points)} points")
        while (share or task_id is not None) and (needed := sweep.needs(points)):
            other, missing = needed
            held = {point for point in missing if is_held(parts[other], point)}
            if free := [point for point in missing if point not in held | tried[other]]:
                run(other, free)
                tried[other].update(free)  # once each, because a point may be refused every time
            elif held:
                _wait()
            else:
                break  # the points that need them are refused, and say so
        run(name, points)
    return failures


def _wait() -> None:
    """Waits a second for other programs, unless this one is asked to stop."""
    preemption.stop_if_requested("while another program trains")
    time.sleep(1.0)


def is_held(sweep: Sweep, point: Point) -> bool:
    """Returns whether another program works on a point."""
    return any(holder(folder) for folder in (_shared(sweep, point), sweep.folder(point)))


def _shared(sweep: Sweep, point: Point) -> Path:
    """Returns the folder of the lock that keeps a point for one of several programs."""
    return sweep.workdir / "shared" / point.name


# The field of ``failure.json`` that has the command in which the point diverged.
_DIVERGED = "diverged_in"


class Schedule:
    """Runs the points that are unfinished; ``is_job`` says that this is the job of an array.

    A point that diverged for a worker of this command would diverge again, and is only reported. A
    point that failed otherwise, such as for lack of memory beside other workers, is run again.
    ``failures`` has the scheme, the seed and the reason of each point that has failed so far, and
    ``tried`` the points that were not left to another program.
    """

    def __init__(self, sweep: Sweep, points: list[Point], *, share: bool, is_job: bool):
        self.sweep, self.points, self.share, self.is_job = sweep, points, share, is_job
        self.failures: list[dict] = []
        self.tried: set[Point] = set()
        self._waiting = {point for point in points if not sweep.is_done(point)}
        self._start, self._done = time.monotonic(), 0
        self._seconds = 0.0  # of a point, so far

    def run(self) -> None:
        """Runs all points, or leaves them to the programs that have begun them."""
        for recipe in filter(None, map(self.sweep.recipe_of, self._waiting)):
            check_sinks(recipe.tensorboard, recipe.wandb)
        if done := len(self.points) - len(self._waiting):
            self._print(f"{done} of {len(self.points)} were done before")
        groups = collections.deque(self.sweep.groups(self.points))
        if self.share and self._has_one_core():
            groups.extend([point] for point in groups.pop())
        while groups:
            group = groups.popleft()
            starts = self._unfinished_starts(group)
            if any(is_held(self.sweep, start) for start in starts):
                groups.append(group)
                _wait()
            elif self.is_job and not self.tried.issuperset(starts):
                groups.extendleft([group, starts])
            else:
                # Jobs of an array may train a point that others start from.
                is_start = any(self.sweep.start_of(point) in group for point in self.sweep.points)
                is_shared = self.share or (self.is_job and is_start)
                with self._taken(group) if is_shared else contextlib.nullcontext(True) as is_free:
                    if is_free:
                        self._run(group)
                self._waiting.difference_update(group)

    def _unfinished_starts(self, group) -> list[Point]:
        """Returns the unfinished points whose models the points of a group start from."""
        starts = [start for point in group if (start := self.sweep.start_of(point)) is not None]
        return [start for start in starts if not self.sweep.finished(start)]

    @contextlib.contextmanager
    def _taken(self, group) -> Iterator[bool]:
        """Locks a group for this program, and yields whether no other program works on it."""
        with contextlib.ExitStack() as stack:
            try:
                for point in group:
                    stack.enter_context(claimed(_shared(self.sweep, point)))
            except ValueError:  # another program has it
                yield False
            else:
                # A program without ``share`` has locked only the points.
                yield not any(holder(self.sweep.folder(point)) for point in group)

    def _run(self, group) -> None:
        """Runs a group that no other program works on."""
        diverged = [point for point in group if self._has_diverged(point)]
        self.failures += [f for point in diverged if (f := self.sweep.failure(point))]
        group = [point for point in group if point not in diverged]
        unfinished = [point for point in group if not self.sweep.is_done(point)]
        errors = self._train_together([p for p in unfinished if not self.sweep.finished(p)])
        for point in group:
            if point in unfinished:
                count = len(self.points) - len(self._waiting) + 1
                self._print(f"[{count}/{len(self.points)}{self._time_left()}] {point.name}")
            self.tried.add(point)
            self._try_point(point, errors.get(point))
            self._waiting.discard(point)
        if unfinished:
            self._done += len(unfinished)
            self._seconds = (time.monotonic() - self._start) / self._done

    def _time_left(self) -> str:
        """Returns how long the other points will take, in words; nothing where that is unknown."""
        programs = workers.count() if self.share else 1
        if not (self._done and self._waiting and programs):
            return ""
        seconds = self._seconds * -(-len(self._waiting) // programs)
        return f", about {datetime.timedelta(seconds=round(seconds))} left"

    def _train_together(self, group) -> dict[Point, Exception]:
        """Trains the points of a group as one program; returns errors of points with bad numbers.

        The other points are then trained in their folders. If the group cannot be one program,
        nothing is returned, and each point is trained alone later and reports its own error. One
        core is busy with one point, so there each is trained alone too.
        """
        if len(group) < 2 or self._has_one_core():
            return {}
        try:
            with contextlib.ExitStack() as stack:
                for point in group:
                    stack.enter_context(claimed(self.sweep.folder(point)))
                    open_run(self.sweep.folder(point), self.sweep.describe(point))
                    self._forget_failure(point)
                errors = self.sweep.train_together(group)
        except PreemptedError:
            raise
        except Exception as error:
            _raise_alone(error)
            self._print(
                f"{group[0].group}: {len(group)} seeds apart, for together they gave "
                f"{type(error).__name__}: {error}"
            )
            return {}
        return {point: errors[point.seed] for point in group if point.seed in errors}

    def _has_one_core(self) -> bool:
        return self.sweep.mesh.devices.flat[0].platform == "cpu" and has_one_core()

    def _try_point(self, point, error) -> None:
        """Runs a point, unless its training gave an ``error``; records its failure, if any."""
        try:
            if error is not None:
                raise error
            with claimed(self.sweep.folder(point)):
                self._run_point(point)
        except PreemptedError:
            raise
        except Exception as error:  # one scheme failing must not take the others with it
            _raise_alone(error)
            self._fail(point, error)

    def _run_point(self, point) -> None:
        sweep, folder = self.sweep, self.sweep.folder(point)
        run = open_run(folder, sweep.describe(point))
        if sweep.is_done(point):
            return
        check_metrics(folder)
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
        if is_evaluated and sweep.finished(point) is None:
            self._print(
                f"  {folder} has results that are damaged or of other settings, which new ones "
                "replace: give another --workdir to keep them"
            )
        self._forget_failure(point)
        model, summary = sweep.train(point)  # reads the model of a point that is finished
        evaluation = {
            **sweep.evaluate_missing(point, model),
            "config": as_json(sweep.describe_evaluation(point)),
            "training": {"scheme": point.label, "seed": point.seed} | summary,
        }
        write_evaluation(folder, evaluation)
        if summary["tokens"]:
            speed = summary["tokens"] / summary["seconds"]
            about = best_note(summary, folder)
            self._print(
                f"  {summary['seconds']:.1f} s of training, {speed:,.0f} tokens/s"
                + (f"; {about}" if about else "")
            )
        sweep.print_point(point, evaluation)

    def _has_diverged(self, point) -> bool:
        """Returns whether a point has diverged for a worker of this command."""
        command, path = workers.command(), self.sweep.folder(point) / "failure.json"
        with contextlib.suppress(ValueError):  # damaged, or another failure
            record = read_json(path, {_DIVERGED: str}) if command else None
            return record is not None and record[_DIVERGED] == command
        return False

    def _forget_failure(self, point) -> None:
        """Removes the record of a point's failure when the point is tried again."""
        (self.sweep.folder(point) / "failure.json").unlink(missing_ok=True)

    def _fail(self, point, error) -> None:
        reason = f"{type(error).__name__}: {error}"
        failure = {"scheme": point.label, "seed": point.seed, "reason": reason}
        self.failures.append(failure)
        self._print(f"  FAILED {reason}", style="bold red")
        folder = self.sweep.folder(point)
        # The folder itself may have failed; then only the terminal has the reason. A point that
        # another program works on has not failed, nor has the run of another config in the folder.
        with contextlib.suppress(OSError):
            if holder(folder) is None and not isinstance(error, OtherConfigError):
                record = failure | {"traceback": traceback.format_exc()}
                if isinstance(error, FloatingPointError):
                    record[_DIVERGED] = workers.command()
                write_json(folder / "failure.json", record)

    def _print(self, line: str, style: str | None = None) -> None:
        self.sweep.console.print(line, style=style, markup=False)


def _raise_alone(error: Exception) -> None:
    """Raises an error that one of several processes may have alone, as the others wait for it."""
    # A disk may fail only for the process that writes; numbers of training are the same in all.
    is_of_all = isinstance(error, FloatingPointError | RefusedError)
    if jax.process_count() > 1 and not is_of_all:
        raise error


def best_note(training: dict, folder: Path) -> str:
    """Says where the best checkpoint of a finished run is, if it is not the last one."""
    best = training.get("best_step")
    if best in (None, training.get("steps")) or not (folder / "checkpoints").exists():
        return ""
    return f"lowest mean loss after step {best}: {folder / 'best'}"
