"""Runs any experiment; this is the only entry point, on every host.

    python launch.py --config=configs/extrapolation.py:small --workdir=runs/small
    python launch.py --config=configs/extrapolation.py:small --workdir=runs/mine \\
        --config.schemes=rope,alibi --config.train.steps=1000

The name after the colon is a preset of the config. The docstring of each file in configs/ lists its
presets, and docs/experiments.md all configs. --config.NAME=VALUE overrides any field of the config.

The command trains and evaluates the schemes of the config, and writes report.html into the workdir.
One scheme with one seed is called a point. Points that are finished in the workdir are not run
again, so the same command resumes after an interruption. Points are run in stages, because some
need others. With --workers=2 two processes, each on half of the cores, divide the points of a stage
between them, for models too small to keep all cores busy. With --stage=K --task_id=N only point N
of stage K is run, for a queue that starts a job for each point.

The program needs ``pip install -e '.[experiments]'``, and says so if that is missing.
"""

import collections
import itertools
import math
import os
import shlex
import sys
from pathlib import Path

from experiments.preemption import ask_again_if_stopped, end_on_ctrl_c
from experiments.training.host import keep_compiled, keep_freed_memory

if __name__ in ("__main__", "__mp_main__"):  # also in workers, and before JAX is imported
    ask_again_if_stopped()
    end_on_ctrl_c()
    keep_freed_memory()

import jax
from absl import app, flags, logging
from jax.experimental import multihost_utils
from ml_collections import config_flags
from rich.console import Console

from experiments.command import status_of
from experiments.joining import join_job
from experiments.running import command_line

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Config file, colon, preset: configs/tasks.py:small."
)
WORKDIR = flags.DEFINE_string("workdir", None, "The folder of checkpoints, results and report.")
STAGE = flags.DEFINE_integer(
    "stage", None, "Run the points of this stage only, from 0.", lower_bound=0
)
TASK_ID = flags.DEFINE_integer(
    "task_id",
    None,
    "Run the point of this number in its stage only, from 0; -1 runs all. Default: the number that "
    "a job array of SLURM or Kubernetes gives, or all.",
)
WORKERS = flags.DEFINE_integer(
    "workers", 1, "Divide the points of each stage among so many processes here.", lower_bound=1
)
DRY_RUN = flags.DEFINE_bool(
    "dry_run", False, "Estimate the memory and time of everything; train nothing."
)
TOPOLOGY = flags.DEFINE_string(
    "topology", None, "With --dry_run: compile for these TPU chips, such as v5e:16x16."
)
MFU = flags.DEFINE_float(
    "mfu", 0.4, "With --dry_run: the share of the devices' peak to expect.", 0.01, 1.0
)
BACKEND = flags.DEFINE_string(
    "backend", None, "Print what would be submitted to slurm, jobset or sky."
)
RESOURCE = flags.DEFINE_multi_string("resource", [], "NAME=VALUE, a setting of the backend.")
SUBMIT = flags.DEFINE_bool("submit", False, "With --backend: submit what is printed.")
REPORT = flags.DEFINE_bool(
    "report", False, "Write the report of the finished points; train nothing."
)
STATUS = flags.DEFINE_bool("status", False, "Show the state of each point; train nothing.")
COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "HOST:PORT of process 0, in a job started by hand."
)
NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "How many processes the job has.")
PROCESS_ID = flags.DEFINE_integer("process_id", None, "The number of this process, from 0.")
PEER_TIMEOUT = flags.DEFINE_integer(
    "peer_timeout", 300, "Seconds of silence after which a process counts as lost.", lower_bound=1
)
START_TIMEOUT = flags.DEFINE_integer(
    "start_timeout", 300, "Seconds that all processes of the job have to start.", lower_bound=1
)
# Flags that mean nothing without another flag, and flags that ask for different things.
_NEEDED = (
    (SUBMIT, BACKEND),
    (RESOURCE, BACKEND),
    (TOPOLOGY, DRY_RUN),
    (MFU, DRY_RUN),
    (COORDINATOR, NUM_PROCESSES),
    (NUM_PROCESSES, PROCESS_ID),
    (PROCESS_ID, COORDINATOR),
)
_APART = [*itertools.combinations((BACKEND, DRY_RUN, STATUS, REPORT), 2), (DRY_RUN, TASK_ID)]
_OF_ONE = WORKERS, TASK_ID, COORDINATOR, NUM_PROCESSES, PROCESS_ID
_APART += [(WORKERS, COORDINATOR), *((BACKEND, flag) for flag in _OF_ONE)]
# Environment variables in which SLURM and Kubernetes say which job of an array this is.
_ARRAY = ("SLURM_ARRAY_TASK_ID", "JOB_COMPLETION_INDEX")


def main(arguments: list[str]) -> int:
    """Runs the experiment, prints what failed, and returns the exit status."""
    from experiments.results.bucket import folder_at

    logging.set_verbosity(logging.WARNING)  # Orbax logs thirty lines for each checkpoint
    try:
        _check(arguments)
        workdir = folder_at(WORKDIR.value)
    except (ValueError, TypeError, OSError) as error:
        command_line.refuse(str(error))
    return status_of(_run, workdir)


def _run(workdir: Path) -> int:
    """Does what the flags ask for, and returns the exit status."""
    from experiments.registry import make_experiment
    from experiments.running.pool import run_points

    trains_nothing = STATUS.value or REPORT.value or DRY_RUN.value or BACKEND.value is not None
    if not trains_nothing:
        keep_compiled()
    _choose_devices()
    # Only the first process of a job prints.
    console = Console(soft_wrap=True, highlight=False, markup=False, quiet=jax.process_index() > 0)
    experiment = make_experiment(CONFIG.value, workdir, console)
    if trains_nothing and not REPORT.value:
        _tell(experiment, workdir, console)
        return 0
    failures = []
    if not REPORT.value:
        task = _task_id()
        failures = run_points(experiment, STAGE.value, task, WORKERS.value)
        if task is not None:  # a queue must not repeat a point whose failure is recorded
            return 0
        if STAGE.value is not None:
            return 1 if failures else 0
    path = experiment.write_report(shlex.join(["python", *sys.argv]))
    _print_missing(experiment, console)
    console.print(f"report: {path}")
    for failure in failures:
        console.print("failed: {scheme} seed {seed}: {reason}".format(**failure))
    return 1 if failures else 0


def _tell(experiment, workdir: Path, console: Console) -> None:
    """Prints what the flags ask for, instead of running the experiment."""
    if BACKEND.value is not None:
        from experiments.running import submit
        from experiments.running.pool import stages_of

        backend = submit.make_backend(BACKEND.value, RESOURCE.value)
        command = ("python", *submit.command_without_own_flags(sys.argv))
        stages = enumerate(stages_of(experiment.parts))
        sizes = {n: len(jobs) for n, jobs in stages if jobs and STAGE.value in (None, n)}
        submit.hand_over(backend, submit.Job(command, sizes, workdir), SUBMIT.value, console)
        return
    from experiments.running import dry_run
    from experiments.running.status import print_status
    from experiments.training import topology
    from experiments.training.mesh import make_mesh

    for name, part in experiment.parts.items():
        if name:
            console.rule(name)
        if STATUS.value:
            print_status(part, console)
            continue
        if TOPOLOGY.value is not None:
            part.place_on(make_mesh(topology.devices(TOPOLOGY.value), **part.config["mesh"]))
        dry_run.print_dry_run(part, MFU.value, console)


def _print_missing(experiment, console: Console) -> None:
    """Prints how many points have no result yet, and what finished ones lack."""
    points = [(part, point) for part in experiment.parts.values() for point in part.points]
    count = sum(not part.finished(point) for part, point in points)
    if count:
        console.print(
            f"{count} of {len(points)} points have no result yet: the same command with --status "
            "says why"
        )
    for part in experiment.parts.values():
        for hole in part.holes():
            console.print(f"{part.workdir.name}: {hole}")


def _choose_devices() -> None:
    """Joins the other processes of the job; if nothing is computed, takes CPUs as devices instead.

    The devices of this machine may differ from those of the job, or be in use by the run that the
    command asks about.
    """
    if STATUS.value or REPORT.value or BACKEND.value is not None or TOPOLOGY.value:
        studies = CONFIG.value.get("studies") or {"": CONFIG.value}
        sizes = [
            [size for axis, size in study.mesh.items() if axis != "context_by" and size > 0]
            for study in studies.values()
        ]
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_num_cpu_devices", math.lcm(*map(math.prod, sizes)))
    elif WORKERS.value > 1:  # each joins a job of its own
        _check_workers()
    else:
        _join()


def _check_workers() -> None:
    """Raises a ValueError if the devices of this machine cannot be divided among workers."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # they share a GPU
    if jax.default_backend() == "tpu":
        raise ValueError("--workers is for CPUs and GPUs, and only one process can have a TPU")


def _join() -> None:
    """Joins the other processes of the job, and checks that all of them are alike."""
    from experiments.running.agreement import check_agreement

    by_hand = COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value
    join_job(*by_hand, PEER_TIMEOUT.value, START_TIMEOUT.value)
    if DRY_RUN.value:  # it has nothing to save
        ask_again_if_stopped()
    devices = collections.Counter(device.process_index for device in jax.devices())
    if len({*devices.values()}) > 1:
        raise ValueError(
            f"processes must have equally many devices, and have (by process) {dict(devices)}: "
            "look for a device that failed, or start a process for each device"
        )
    if jax.process_count() > 1:
        # Once they are connected, processes notice at once when one of them ends.
        multihost_utils.sync_global_devices("all have joined")
        alike = {flag.name: flag.value for flag in (WORKDIR, STAGE, DRY_RUN, MFU)}
        check_agreement(CONFIG.value, alike | {"task_id": _task_id()})


def _check(arguments: list[str]) -> None:
    if len(arguments) > 1:
        raise ValueError(f"{arguments[1]!r} is no flag; every argument is --name=value")
    for flag in (CONFIG, WORKDIR):
        if flag.value is None:
            raise ValueError(
                f"--{flag.name} is missing; a command has both, such as python launch.py "
                "--config=configs/extrapolation.py:small --workdir=runs/small"
            )
    if not WORKDIR.value.strip():
        raise ValueError("--workdir is empty; give the folder of the results")
    command_line.check_together(_NEEDED, _APART)


def _task_id() -> int | None:
    """Returns the number of the only point to run, or None for all."""
    name, given = "--task_id", TASK_ID.value
    for variable in _ARRAY:
        if given is None and variable in os.environ:
            name, given = variable, os.environ[variable]
    if given in (None, -1):
        return None
    if name == "JOB_COMPLETION_INDEX" and jax.process_count() > 1:
        raise ValueError(
            f"{name}={given} numbers the processes of this job, so it cannot be the number of a "
            "point too; give --task_id=N, or --task_id=-1 for all points"
        )
    if not str(given).isdigit():
        raise ValueError(f"{name}={given} must be the number of a point, or -1 for all")
    return int(given)


if __name__ == "__main__":
    app.run(main, flags_parser=command_line.parsed)
