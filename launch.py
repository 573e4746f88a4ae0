"""Runs any experiment; this is the only entry point, on every host.

    python launch.py --config=configs/extrapolation.py:small --workdir=runs/small
    python launch.py --config=configs/extrapolation.py:small --workdir=runs/mine \\
        --config.schemes=rope,alibi --config.train.steps=1000

The name after the colon is a preset of the config. The docstring of each file in configs/ lists its
presets, and docs/experiments.md all configs. --config.NAME=VALUE overrides any field of the config.

The command trains and evaluates the schemes of the config, and writes report.html into the workdir.
One scheme with one seed is called a point. Points that are finished in the workdir are not run
again, so the same command resumes after an interruption. With --workers=2 two processes, each on
half of the cores, divide the points between them, for models too small to keep all cores busy. To
divide the points among several machines that see the workdir, start the command with --share on
each, and run it once without --share at the end, for the report. With --task_id=N only point N is
run, for a queue that starts a job for each point.

The program needs ``pip install -e '.[experiments]'``, and says so if that is missing.
"""

import collections
import itertools
import math
import os
import shlex
import sys
from pathlib import Path

from experiments import job_processes
from experiments.running import workers
from experiments.training.host import keep_compiled, keep_freed_memory

if __name__ == "__main__":  # all of it before JAX is imported
    job_processes.ask_again_if_stopped()
    if job_processes.are_expected(sys.argv):
        sys.exit(job_processes.watch([sys.executable, *sys.argv]))
    job_processes.end_with_watcher()
    workers.run(sys.argv)
    keep_freed_memory()

import jax
from absl import app, flags, logging
from jax.experimental import multihost_utils
from ml_collections import config_flags
from rich.console import Console

from experiments import joining, preemption
from experiments.running import command_line, endings

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Config file, colon, preset: configs/tasks.py:small."
)
WORKDIR = flags.DEFINE_string("workdir", None, "The folder of checkpoints, results and report.")
TASK_ID = flags.DEFINE_integer(
    "task_id",
    None,
    "Run the point of this number only, from 0; -1 runs all. Default: the number that a job array "
    "of SLURM or Kubernetes gives, or all.",
)
WORKERS = flags.DEFINE_integer(  # which ``running/workers.py`` reads
    "workers", 1, "Divide the points and the cores among so many processes here.", lower_bound=1
)
SHARE = flags.DEFINE_bool(
    "share", False, "Skip the points that other programs in the same workdir have begun."
)
DRY_RUN = flags.DEFINE_bool(
    "dry_run", False, "Estimate the memory and time of everything; train nothing."
)
TOPOLOGY = flags.DEFINE_string(
    "topology", None, "With --dry_run: compile for these TPU chips, such as v5e:16x16."
)
MFU = flags.DEFINE_float("mfu", 0.4, "With --dry_run: the share of the devices' peak to expect.")
BACKEND = flags.DEFINE_string(
    "backend", None, "Print what would be submitted to local, slurm, gke, xpk, tpu_vm or sky."
)
RESOURCE = flags.DEFINE_multi_string("resource", [], "NAME=VALUE, a setting of the backend.")
SUBMIT = flags.DEFINE_bool("submit", False, "With --backend: submit what is printed.")
AGAIN = flags.DEFINE_bool("again", False, "With --submit: submit a workdir for a second time.")
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
    (AGAIN, SUBMIT),
    (TOPOLOGY, DRY_RUN),
    (MFU, DRY_RUN),
    (COORDINATOR, NUM_PROCESSES),
    (NUM_PROCESSES, PROCESS_ID),
    (PROCESS_ID, COORDINATOR),
)
_APART = [*itertools.combinations((BACKEND, DRY_RUN, STATUS, REPORT), 2), (DRY_RUN, TASK_ID)]
_APART += [(BACKEND, flag) for flag in (WORKERS, TASK_ID, COORDINATOR, NUM_PROCESSES, PROCESS_ID)]


def main(arguments: list[str]) -> int:
    """Runs the experiment, prints what failed, and returns the exit status."""
    from experiments.results.bucket import folder_at

    logging.set_verbosity(logging.WARNING)  # Orbax logs thirty lines for each checkpoint
    try:
        _check(arguments)
        workdir = folder_at(WORKDIR.value)
    except (ValueError, TypeError, OSError) as error:
        endings.refuse(str(error))
    preemption.remember_ctrl_c()
    return endings.status_of(_run, workdir)


def _run(workdir: Path) -> int:
    """Does what the flags ask for, and returns the exit status."""
    from experiments.registry import make_experiment
    from experiments.results.bucket import is_in_bucket
    from experiments.results.locks import UNLOCKED
    from experiments.running.schedule import run_points

    if not (DRY_RUN.value or STATUS.value or BACKEND.value is not None):
        keep_compiled()
    _choose_devices()
    _check_cores()
    # Only the first process of a job prints.
    console = Console(soft_wrap=True, highlight=False, quiet=jax.process_index() > 0)
    experiment = make_experiment(CONFIG.value, workdir, console)
    if STATUS.value or BACKEND.value is not None or DRY_RUN.value:
        _tell(experiment, workdir, console)
        return 0
    if is_in_bucket(workdir):
        console.print(UNLOCKED.format(folder=workdir), markup=False)
    task = None if REPORT.value else _task_id()
    failures = [] if REPORT.value else run_points(experiment.parts, task, SHARE.value)
    if REPORT.value or not SHARE.value:  # a later command without --share writes the report
        try:
            path = experiment.write_report(shlex.join(["python", *sys.argv]))
        except ValueError as error:
            if task is None:
                raise
            path = f"none yet, because {error}"  # the job itself has ended well all the same
        _print_missing(experiment, console)
        console.print(f"report: {path}")
        for failure in failures:
            console.print("failed: {scheme} seed {seed}: {reason}".format(**failure), markup=False)
    return 1 if failures else 0


def _tell(experiment, workdir: Path, console: Console) -> None:
    """Prints what the flags ask for, instead of running the experiment."""
    if BACKEND.value is not None:
        from experiments.running import submit

        backend = submit.make_backend(BACKEND.value, RESOURCE.value)
        command = ("python", *submit.command_without_own_flags(sys.argv))
        count = sum(len(part.points) for part in experiment.parts.values())
        job = submit.Job(command, count, workdir)
        submit.hand_over(backend, job, submit=SUBMIT.value, again=AGAIN.value, console=console)
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
            console.print(f"{part.workdir.name}: {hole}", markup=False)


def _choose_devices() -> None:
    """Joins the other processes of the job; if nothing is computed, takes CPUs as devices instead.

    The devices of this machine may differ from those of the job, or be in use by the run that the
    command asks about.
    """
    from experiments.running.agreement import check_agreement

    if not (STATUS.value or REPORT.value or BACKEND.value is not None or TOPOLOGY.value):
        by_hand = COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value
        joining.join_job(*by_hand, PEER_TIMEOUT.value, START_TIMEOUT.value)
        if DRY_RUN.value:  # it has nothing to save
            job_processes.ask_again_if_stopped()
        devices = collections.Counter(device.process_index for device in jax.devices())
        if len({*devices.values()}) > 1:
            raise ValueError(
                f"processes must have equally many devices, and have (by process) {dict(devices)}: "
                "look for a device that failed, or start a process for each device"
            )
        # Once they are connected, processes notice at once when one of them ends.
        multihost_utils.sync_global_devices("all have joined")
        if jax.process_count() > 1:
            alike = WORKDIR, SHARE, DRY_RUN, MFU
            flags = {flag.name: flag.value for flag in alike} | {"task_id": _task_id()}
            check_agreement(CONFIG.value, flags)
        return
    studies = CONFIG.value.get("studies") or {"": CONFIG.value}
    sizes = [[size for size in study.mesh.values() if size > 0] for study in studies.values()]
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", math.lcm(*map(math.prod, sizes)))


def _check_cores() -> None:
    """Raises a ValueError for workers on an accelerator, because each would take all of it."""
    if SHARE.value and workers.count() and jax.default_backend() != "cpu":
        raise ValueError(
            f"--workers is for the cores of a CPU, and JAX found a {jax.default_backend()}: "
            "leave it out, or set JAX_PLATFORMS=cpu"
        )


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
    if not hasattr(CONFIG.value, "experiment"):
        raise ValueError(f"--config gave {CONFIG.value!r}, which is no config of an experiment")
    for name in config_flags.get_override_values(flags.FLAGS["config"]):
        if name.rpartition(".")[2] == "experiment":
            raise ValueError(f"--config.{name} is fixed by the config file; give another file")


def _task_id() -> int | None:
    """Returns the number of the only point to run, or None for all."""
    name, given = "--task_id", TASK_ID.value
    for variable in workers.ARRAY:
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
