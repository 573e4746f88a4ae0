"""Makes tiny runs of experiments: in this process, as a command, and in processes of a job."""

import contextlib
import importlib
import io
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import common
from absl.testing import flagsaver
from rich.console import Console

import launch
from configs.extrapolation import get_config
from experiments.registry import make_experiment
from experiments.results import seal
from experiments.running import command_line
from experiments.studies.text import Comparison

# Programs of their own have one device; of a flag that is given twice XLA takes the last.
FLAGS = os.environ["XLA_FLAGS"] + " --xla_force_host_platform_device_count=1"
# Each far longer than the second that JAX may take to notice a signal, on the slowest machine.
ENDLESS = {
    "train": ["--config.train.steps=100000"],
    "evaluate": [
        "--config.corpus=stdlib",
        "--config.eval.documents=10000",
        "--config.eval.strides=((1, 10000),)",
    ],
}
TINY = "--config=configs/extrapolation.py:tiny"


def config(files, **changes):
    """Returns the config of a comparison of three schemes, one of which extends another."""
    config = get_config("tiny")
    config.corpus = files
    config.schemes = "rope,yarn,alibi"
    return common.changed(config, **changes)


def study(name, workdir, preset="tiny", **changes):
    """Makes the experiment of a config, such as ``images`` or ``learned.copy``, with changes."""
    file, *parts = name.split(".")
    config = importlib.import_module(f"configs.{file}").get_config(preset)
    for part in parts:
        config = config.studies[part]
    return make_experiment(common.changed(config, **changes), workdir, Console(quiet=True))


def comparison(config, workdir, kind=Comparison):
    """Returns a comparison, or another kind of experiment, and what it will print."""
    output = io.StringIO()
    return kind(config, workdir, Console(file=output, width=200)), output


def untrained(one):
    """Makes a comparison end each of its points at once, without a model and without results."""
    one.train = lambda point: (None, {"steps": 0, "tokens": 0})
    one.evaluate = lambda point, model: {"records": [], "curves": []}
    one.print_point = lambda point, evaluation: None
    return one


def of_other_data(folder, digest):
    """Makes a finished run one on other data of the same name, such as those of another Python."""
    run = json.loads((folder / "run.json").read_text())
    evaluation = seal.read_evaluation(folder, {"config": dict}, run)
    run["config"]["corpus_digest"] = digest
    (folder / "run.json").write_text(json.dumps(run))
    seal.write_evaluation(folder, evaluation)


class Ended(NamedTuple):
    """Holds the exit status of a command and what it has printed."""

    status: int
    output: str
    errors: str


def command(*arguments: str) -> Ended:
    """Runs a command line of ``launch.py`` in this process, on the devices that there are."""
    output, errors, argv = io.StringIO(), io.StringIO(), ["launch.py", *arguments]
    with contextlib.ExitStack() as stack:
        stack.enter_context(flagsaver.flagsaver())
        stack.enter_context(mock.patch.object(sys, "argv", argv))
        for name in ("keep_compiled", "_choose_devices"):  # which set what JAX does from then on
            stack.enter_context(mock.patch.object(launch, name, lambda *_: None))
        stack.enter_context(contextlib.redirect_stdout(output))
        stack.enter_context(contextlib.redirect_stderr(errors))
        try:
            status = launch.main(command_line.parsed(argv))
        except SystemExit as stop:
            status = stop.code
    return Ended(status, output.getvalue(), errors.getvalue())


def program(*arguments: str, **environment: str) -> Ended:
    """Runs a Python program in a process of its own, until it ends."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=common.ROOT,
        env=os.environ | {"XLA_FLAGS": FLAGS} | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


def free_port(ports=(0,)):
    """Returns the first of some ports that is free; 0 stands for any."""
    for port in ports:
        with socket.socket() as free, contextlib.suppress(OSError):
            free.bind(("127.0.0.1", port))
            return free.getsockname()[1]


def by_hand(count):
    """Returns the flags and the environment of each process of a job that is started by hand."""
    if count == 1:
        return [([], {})]
    job = [f"--coordinator=127.0.0.1:{free_port()}", f"--num_processes={count}"]
    return [([*job, f"--process_id={number}"], {}) for number in range(count)]


def start(count, workdir, corpus, *arguments, how=by_hand, path="launch.py", config=None):
    """Starts an experiment, by default a comparison of ``rope``, in processes of one job."""
    config = config or (TINY, "--config.schemes=rope")
    command = [*config, f"--workdir={workdir}", f"--config.corpus={corpus}", *arguments]
    # They hear Ctrl-C, which a suite in the background makes its children ignore.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return [
            subprocess.Popen(
                [sys.executable, path, *command, *flags],
                cwd=common.ROOT,
                env=os.environ | {"XLA_FLAGS": FLAGS} | variables,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for flags, variables in how(count)
        ]
    finally:
        signal.signal(signal.SIGINT, before)


def wait_for(path: Path) -> None:
    """Waits until a file has something in it."""
    deadline = time.monotonic() + 300
    while not (path.exists() and path.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.05)


def ended(processes, timeout=300) -> list[tuple[str, str]]:
    """Returns what each process has printed, its output and its errors, once all have ended.

    All are read at a time, because one whose pipe is full waits, and others may wait for it. Where
    one has not ended in time, all are killed.
    """
    try:
        with ThreadPoolExecutor(len(processes)) as pool:
            return [*pool.map(lambda process: process.communicate(timeout=timeout), processes)]
    finally:
        for process in processes:
            process.kill()


def finish(processes) -> list[str]:
    """Returns what each process has printed, once all have ended well."""
    printed = ended(processes)
    assert {process.returncode for process in processes} == {0}, printed
    return [out for out, _ in printed]


@contextlib.contextmanager
def full_disk(most: int = 1):
    """Refuses to write files longer than ``most`` bytes, as a full disk would."""
    usual, highest = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, highest))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (usual, highest))


def cut_off(path: Path) -> None:
    """Damages a file as a full disk does."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flipped(path: Path) -> None:
    """Alters one bit of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
