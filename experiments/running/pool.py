"""Runs the points of an experiment stage by stage, in this process or in a pool of several.

A step of a small model leaves cores idle, and tracing and compiling use only one. So a process on
each core finishes a study of small models sooner than one process on all cores.
"""

import collections
import contextlib
import datetime
import itertools
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict
from rich.console import Console

from experiments.joining import join_job
from experiments.preemption import PREEMPTED, PreemptedError
from experiments.results.record import RefusedError
from experiments.running.points import Point
from experiments.running.study import Study
from experiments.training.host import keep_compiled


class Job(NamedTuple):
    """Names a point of an experiment, and the study in ``parts`` that it belongs to."""

    part: str
    point: Point

    @property
    def name(self) -> str:
        """Returns the name of the job on the terminal."""
        return f"{self.part}/{self.point.name}" if self.part else self.point.name


Failure = dict[str, Any]


def stages_of(parts: Mapping[str, Study]) -> list[list[Job]]:
    """Returns the stages of an experiment: each is the same stage of all its studies."""
    of_parts = (
        [[Job(name, point) for point in stage] for stage in study.stages()]
        for name, study in parts.items()
    )
    stages = itertools.zip_longest(*of_parts, fillvalue=())
    return [[job for of_part in stage for job in of_part] for stage in stages]


def chosen(stages: list[list[Job]], stage: int | None, task: int | None) -> list[list[Job]]:
    """Returns all stages, or one with all its jobs or with the job of the number ``task``."""
    if stage is None and task is None:
        return stages
    if stage is None and len(stages) > 1:
        raise RefusedError(
            f"task_id={task} needs a --stage in 0..{len(stages) - 1}: points of one stage need "
            "those of the stages before"
        )
    if not 0 <= (stage := stage or 0) < len(stages):
        raise RefusedError(f"stage={stage} must be in 0..{len(stages) - 1}")
    jobs = stages[stage]
    if task is None:
        return [jobs]
    if not 0 <= task < len(jobs):
        raise RefusedError(
            f"task_id={task} must be in 0..{len(jobs) - 1}, the number of a point of stage {stage}"
        )
    return [[jobs[task]]]


def run_points(
    experiment: Any, stage: int | None = None, task: int | None = None, workers: int = 1
) -> list[Failure]:
    """Runs the points of an experiment that are not done; returns the failures.

    With ``stage`` only the points of that stage are run, and with ``task`` only the point of that
    number. With several ``workers`` each stage is divided among so many processes. A point that
    fails leaves the others.
    """
    parts = experiment.parts
    stages = chosen(stages_of(parts), stage, task)
    for part in {job.part for jobs in stages for job in jobs}:
        parts[part].prepare()
    failures: list[Failure] = []
    for jobs in stages:
        left = [job for job in jobs if not parts[job.part].is_done(job.point)]
        if done := len(jobs) - len(left):
            experiment.console.print(f"{done} of {len(jobs)} were done before")
        if left and workers > 1:
            failures += _in_pool(experiment, left, workers)
        else:
            failures += _in_turn(experiment, left)
    return failures


def _in_turn(experiment: Any, jobs: list[Job]) -> Iterator[Failure]:
    """Runs jobs in this process, and yields the failures."""
    clock = _Clock(experiment.console, len(jobs), 1)
    for job in jobs:
        clock.begin(job)
        if failure := attempt(experiment.parts, job):
            yield failure
        clock.end()


def attempt(parts: Mapping[str, Study], job: Job) -> Failure | None:
    """Runs a point; records and returns its failure, if it fails."""
    study = parts[job.part]
    try:
        study.run(job.point)
    except PreemptedError:
        raise
    except Exception as error:  # one scheme failing must not take the others with it
        # A disk may fail only for the process that writes, and the others then wait for it. Numbers
        # of training are the same in all.
        is_of_all = isinstance(error, FloatingPointError | RefusedError)
        if jax.process_count() > 1 and not is_of_all:
            raise
        return _of_part(job, study.fail(job.point, error))
    return None


def _of_part(job: Job, failure: Failure) -> Failure:
    return failure | {"scheme": f"{job.part}: {failure['scheme']}"} if job.part else failure


class _Clock:
    """Prints which point begins, and how long all will take."""

    def __init__(self, console: Console, total: int, workers: int):
        self._console, self._total, self._workers = console, total, workers
        self._begun, self._done, self._start = 0, 0, time.monotonic()

    def begin(self, job: Job) -> None:
        self._begun += 1
        left = ""
        if self._done:
            each = self._workers * (time.monotonic() - self._start) / self._done
            seconds = each * -(-(self._total - self._done) // self._workers)
            left = f", about {datetime.timedelta(seconds=round(seconds))} left"
        line = f"[{self._begun}/{self._total}{left}] {job.name}"
        self._console.print(line)

    def end(self) -> None:
        self._done += 1


# Several processes


def _in_pool(experiment: Any, jobs: list[Job], count: int) -> list[Failure]:
    """Runs jobs in several processes; a job whose process is killed is run again, alone."""
    failures, left = _divided(experiment, jobs, min(count, len(jobs)))
    for job in left:
        experiment.console.print(f"{job.name} has lost its process, and is run alone")
        more, lost = _divided(experiment, [job], 1)
        failures += more
        if lost:
            reason = RuntimeError("its process was killed twice: is there enough memory?")
            failures.append(_of_part(job, experiment.parts[job.part].fail(job.point, reason)))
    return failures


def _divided(experiment: Any, jobs: list[Job], count: int) -> tuple[list[Failure], list[Job]]:
    """Divides jobs among processes; returns the failures, and the jobs that were not done."""
    failures: list[Failure] = []
    waiting, lost = collections.deque(jobs), list[Job]()
    clock = _Clock(experiment.console, len(jobs), count)
    cores = available_cores()
    workers = [_Worker(experiment, cores[first::count] or cores) for first in range(count)]

    def give(worker):
        if waiting and not stops:
            clock.begin(waiting[0])
            worker.give(waiting.popleft())

    with _ending_with_this(workers) as stops:
        for worker in workers:
            give(worker)
        while busy := [worker for worker in workers if worker.job]:
            ready = wait([worker.pipe for worker in busy])
            for worker in [worker for worker in busy if worker.pipe in ready]:
                job, failure = worker.result()
                if failure is None:
                    lost.append(job)
                    continue
                failures += [failure] if failure else []
                clock.end()
                give(worker)
    if stops:
        raise PreemptedError("asked to stop: everything is saved, run again")
    return failures, [*lost, *waiting]


class _Worker:
    """Runs jobs in a process of its own, one at a time."""

    def __init__(self, experiment: Any, cores: list[int]):
        context = multiprocessing.get_context("spawn")  # a fork of JAX's threads would hang
        self.pipe, theirs = context.Pipe()
        self.job: Job | None = None
        about = type(experiment), experiment.config, experiment.workdir
        self.process = context.Process(target=_serve, args=(theirs, cores, *about))
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # the child ignores Ctrl-C from birth
        self.process.start()
        signal.signal(signal.SIGINT, before)
        theirs.close()  # so that the pipe ends with the process

    def give(self, job: Job) -> None:
        """Begins a job."""
        self.job = job
        with contextlib.suppress(OSError):  # the process was killed; ``result`` says so
            self.pipe.send(job)

    def result(self) -> tuple[Job, Failure | None]:
        """Returns a job that has ended, and its failure or {}; None if its process was killed."""
        job, self.job = self.job, None
        assert job is not None
        try:
            return job, self.pipe.recv() or {}
        except (EOFError, OSError):
            return job, None


@contextlib.contextmanager
def _ending_with_this(workers: list[_Worker]) -> Iterator[list[bool]]:
    """Passes signals on to workers, and yields a list that is empty until SIGTERM comes."""
    stops: list[bool] = []

    def stop(*_):
        stops.append(True)
        for worker in workers:
            if worker.job:
                worker.process.terminate()
            else:
                worker.process.kill()  # JAX would wait for its next step

    def end(number, frame):
        for worker in workers:
            worker.process.kill()
        ends = before[signal.SIGINT]
        if callable(ends):
            ends(number, frame)

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, end)
    try:
        yield stops
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for worker in workers:  # they are idle by now
            worker.process.kill()
            worker.process.join()


def _serve(
    pipe: Connection, cores: list[int], kind: type, config: dict[str, Any], workdir: Path
) -> None:
    """Runs the jobs that come through a pipe, in a process of its own, until the pipe ends.

    The experiment is made again there, from its class and its config.
    """
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if hasattr(os, "sched_setaffinity"):  # elsewhere than on Linux it goes where there is room
        os.sched_setaffinity(0, cores)
    os.environ["TTY_COMPATIBLE"] = "0"  # no progress bars, for several cannot share a terminal
    keep_compiled()
    join_job()
    console = Console(soft_wrap=True, highlight=False, markup=False, quiet=True)
    experiment = kind(ConfigDict(config), workdir, console)
    console.quiet = False  # the first process has printed what is said of the config
    while True:
        try:
            job = pipe.recv()
        except EOFError:
            os._exit(0)
        try:
            pipe.send(attempt(experiment.parts, job))
        except PreemptedError:
            os._exit(PREEMPTED)


def _end_with_parent() -> None:
    """Asks this process to stop once its parent has ended, in whatever way."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)


def available_cores() -> list[int]:
    """Returns the cores that this process may use. Only Linux says, elsewhere it may use all."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))
