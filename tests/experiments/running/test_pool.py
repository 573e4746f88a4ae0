"""Tests stages, and points that are divided among processes: each is run once, whatever happens."""

import os
import signal
import sys
import time
from pathlib import Path

import common
import pytest
from tiny_runs import TINY, start, wait_for

from experiments.running import pool
from experiments.running.points import Point
from experiments.running.pool import Job, chosen, stages_of

TWO_CORES = pytest.mark.skipif(
    len(pool.available_cores()) < 2 or not sys.platform.startswith("linux"),
    reason="two workers need two cores, and the tests /proc of Linux",
)


class Stages:
    """Stands in for a study with a point for each letter, and several stages."""

    def __init__(self, *stages):
        self._stages = [[Point(letter, 0, ()) for letter in stage] for stage in stages]

    def stages(self):
        return self._stages


def test_a_stage_of_several_studies_has_the_same_stage_of_each():
    stages = stages_of({"one": Stages("ab"), "two": Stages("", "c"), "three": Stages("d", "e")})
    names = [[job.name.removesuffix("/seed0") for job in stage] for stage in stages]
    assert names == [["one/a", "one/b", "three/d"], ["two/c", "three/e"]]
    assert chosen(stages, None, None) == stages
    assert chosen(stages, 1, None) == stages[1:]
    assert chosen(stages, 1, 1) == [[Job("three", Point("e", 0, ()))]]
    assert chosen(stages[:1], None, 2) == [[stages[0][2]]], "of a single stage it is the first"
    for stage, task, word in ((None, 0, "--stage"), (2, None, "stage=2"), (1, 2, "0..1")):
        common.refuses(word, lambda at=(stage, task): chosen(stages, *at))


def workers_of(process) -> list[int]:
    """Returns the workers of a program, as soon as both are there."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        numbers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        commands = {int(number): Path(f"/proc/{number}/cmdline").read_text() for number in numbers}
        workers = [number for number, command in commands.items() if "spawn_main" in command]
        if len(workers) == 2:
            return workers
        time.sleep(0.05)
    raise TimeoutError("there are no workers")


def all_end(numbers):
    deadline = time.monotonic() + 60
    while any(os.path.exists(f"/proc/{number}") for number in numbers):
        assert time.monotonic() < deadline, "a worker goes on alone"
        time.sleep(0.05)


@pytest.mark.slow
@TWO_CORES
def test_two_workers_divide_the_points_and_one_that_is_killed_costs_none(corpus, tmp_path):
    config = TINY, "--config.schemes=nope,rope,alibi", "--workers=2"
    little = "--config.eval.multiples=(1,)", "--config.eval.strides=()"
    (process,) = start(1, tmp_path, corpus, *little, config=config)
    victim, _ = workers_of(process)
    wait_for(tmp_path / "runs/nope/seed0/metrics.jsonl")
    os.kill(victim, signal.SIGKILL)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert len(list(tmp_path.glob("runs/*/seed0/evaluation.json"))) == 3
    assert (tmp_path / "report.html").exists() and "has lost its process" in output


@pytest.mark.slow
@TWO_CORES
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 75), (signal.SIGKILL, -9)])
def test_workers_end_with_the_program_that_started_them(corpus, tmp_path, number, status):
    """After SIGTERM all have saved the step that they had come to."""
    config = [TINY, "--config.schemes=nope,rope", "--workers=2"]
    config += ["--config.train.steps=100000", "--config.train.checkpoint_every=100000"]
    (process,) = start(1, tmp_path, corpus, config=config)
    workers = workers_of(process)
    for scheme in ("nope", "rope"):
        wait_for(tmp_path / f"runs/{scheme}/seed0/metrics.jsonl")
    process.send_signal(number)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == status and "Traceback" not in errors, errors
    all_end(workers)
    if number == signal.SIGTERM:
        assert len([*tmp_path.glob("runs/*/seed0/checkpoints/*/state")]) == 2
