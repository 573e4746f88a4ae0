"""Tests the command line: in this process, and where a process is the subject in one of its own."""

import importlib
import json
import random
import re
import signal
import subprocess
import sys
import time
import types
from unittest import mock

import common
import jax
import pytest
import tiny_runs as runs
from tiny_runs import TINY

import launch
from experiments import joining
from experiments.registry import EXPERIMENTS
from experiments.results.record import read_lines
from experiments.running import pool
from experiments.studies.text import Comparison


def test_a_job_of_a_queue_runs_one_point(corpus, tmp_path):
    """The number of the point comes from the queue.

    Programs are kept in the user's cache: those in a workdir could come from a stranger.
    """
    little = ["--config.schemes=alibi,nope", "--config.train.steps=2"]
    little += ["--config.eval.multiples=(1,)", "--config.eval.strides=()"]
    where = f"--workdir={tmp_path}", f"--config.corpus={corpus}"
    cache = {"JAX_COMPILATION_CACHE_DIR": "", "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = runs.program("launch.py", TINY, *where, *little, SLURM_ARRAY_TASK_ID="1", **cache)
    assert done.status == 0, done.errors
    assert "[1/1] nope/seed0" in done.output and not (tmp_path / "report.html").exists()
    assert [p.name for p in (tmp_path / "runs").iterdir()] == ["nope"]
    assert [*(tmp_path / "cache/posenc_jax/compiled").iterdir()]
    assert not (tmp_path / "compiled").exists()


@pytest.mark.parametrize("stage", ["train", pytest.param("evaluate", marks=pytest.mark.slow)])
def test_sigterm_stops_any_stage(corpus, tmp_path, stage):
    config = TINY, "--config.schemes=nope,alibi", "--config.eval.batch_tokens=32"
    folder = tmp_path / "runs/nope/seed0"
    begun = folder / ("metrics.jsonl" if stage == "train" else "checkpoints/6/_CHECKPOINT_METADATA")
    (process,) = runs.start(1, tmp_path, corpus, *runs.ENDLESS[stage], config=config)
    runs.wait_for(begun)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 75, errors
    assert "run again" in errors
    assert not (tmp_path / "runs/alibi").exists(), "went on to the next point"
    assert [p for p in (folder / "checkpoints").iterdir() if p.name.isdigit()]


@pytest.mark.slow
def test_ctrl_c_is_one_sentence(corpus, tmp_path):
    """Also in a callback of the garbage collector, where Python ignores an exception, and while
    threads of Orbax write, which crashed the interpreter at its exit."""
    often = "--config.train.checkpoint_every=10"
    (process,) = runs.start(1, tmp_path, corpus, *runs.ENDLESS["train"], often)
    runs.wait_for(tmp_path / "runs/rope/seed0/metrics.jsonl")
    time.sleep(3 * random.random())
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130 and "the same command goes on" in errors
    assert "Traceback" not in errors


@pytest.mark.slow
def test_a_run_that_is_killed_at_random_moments_ends_as_one_that_is_not(corpus, tmp_path):
    """It is the same to the last bit, in training and in the evaluation."""
    often = ["--config.train.steps=160", "--config.train.log_every=1"]
    often += ["--config.train.checkpoint_every=2"]
    folders = [tmp_path / name / "runs/rope/seed0" for name in ("killed", "undisturbed")]
    metrics = folders[0] / "metrics.jsonl"
    for _ in range(3):
        before = metrics.stat().st_size if metrics.exists() else 0
        (process,) = runs.start(1, tmp_path / "killed", corpus, *often)
        while not metrics.exists() or metrics.stat().st_size <= before:
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        time.sleep(random.uniform(0, 0.2))
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL, "it had ended before"
    for name in ("killed", "undisturbed"):
        runs.finish(runs.start(1, tmp_path / name, corpus, *often))
    lines = [read_lines(folder / "metrics.jsonl") for folder in folders]
    losses = [[(line["step"], line["loss"]) for line in of_run] for of_run in lines]
    assert losses[0] == losses[1] and len(losses[0]) == 160
    evaluations = [json.loads((folder / "evaluation.json").read_text()) for folder in folders]
    assert evaluations[0]["records"] == evaluations[1]["records"]


@pytest.mark.slow
def test_sigterm_at_the_start_asks_for_another(tmp_path):
    """Before anything is done, there is nothing to save, but the queue must run it again."""
    process = subprocess.Popen(
        [sys.executable, "-X", "importtime", "launch.py", TINY, f"--workdir={tmp_path}"],
        cwd=common.ROOT,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    for line in process.stderr:
        if "numpy" in line:  # on the way to import jax
            process.send_signal(signal.SIGTERM)
            break
    process.communicate(timeout=60)
    assert process.returncode == 75


@pytest.mark.slow
def test_a_machine_without_the_devices_of_the_mesh_submits(corpus, tmp_path):
    """A laptop hands a job to a pod."""
    config = TINY, "--config.schemes=nope", f"--config.corpus={corpus}", "--config.mesh.fsdp=8"
    flags = "--backend=sky", "--resource=accelerators=H100:8", "--resource=bucket=gs://b"
    done = runs.program("launch.py", *config, f"--workdir={tmp_path}", *flags)
    assert done.status == 0 and "seq" in done.output, done.errors
    assert not list(tmp_path.iterdir()), "nothing is written where nothing runs"


def test_a_report_of_what_is_done_trains_nothing(workdir, corpus):
    before = sorted(workdir.rglob("*"))
    schemes = "--config.schemes=rope,yarn,alibi,nope"
    where = TINY, f"--workdir={workdir}", f"--config.corpus={corpus}", schemes
    done = runs.command(*where, "--report")
    assert done.status == 0 and "report.html" in done.output
    assert sorted(workdir.rglob("*")) == before


def test_a_job_of_a_queue_ends_well_once_the_failure_of_its_point_is_recorded(
    corpus, tmp_path, monkeypatch
):
    """The queue must neither repeat it nor keep later stages waiting; a person is told by a 1."""
    failure = {"scheme": "nope", "seed": 0, "reason": "loss nan"}
    monkeypatch.setattr(pool, "run_points", lambda *_: [failure])
    monkeypatch.setattr(Comparison, "write_report", lambda *_: "report.html")
    command = TINY, f"--config.corpus={corpus}", f"--workdir={tmp_path}"
    job, stage, alone = (
        runs.command(*command, *more) for more in (["--task_id=0"], ["--stage=0"], [])
    )
    assert (job.status, stage.status, alone.status) == (0, 1, 1)
    assert "failed: nope seed 0: loss nan" in alone.output


def test_the_command_line_says_what_is_wrong(tmp_path):
    where = f"--workdir={tmp_path}"
    for arguments, word in (
        ([TINY, where, "--config.schemes=nopee"], "'nopee' .*'nope'"),
        ([TINY, where, "--task_id=99"], "task_id=99"),
        ([TINY, where, "--config.train.stepz=3"], "--config.train.stepz=3"),
        ([TINY, where, "--status", "--backend=sky"], "--backend"),
        ([TINY], "--workdir"),
    ):
        done = runs.command(*arguments)
        assert done.status == 2, arguments
        assert re.match(f"error: .*{word}", done.errors), arguments
        assert "Traceback" not in done.errors


def test_every_config_names_an_experiment_that_launch_knows():
    named = set()
    for path in (common.ROOT / "configs").glob("[!_]*.py"):
        config = importlib.import_module(f"configs.{path.stem}").get_config("tiny")
        studies = config.get("studies", {}).values()
        named |= {config.experiment, *(one.experiment for one in studies)}
    assert named == set(EXPERIMENTS)
    for name in named:
        module, _, attribute = EXPERIMENTS[name].partition(":")
        assert hasattr(importlib.import_module(module), attribute)


def test_a_number_that_kubernetes_gives_to_a_process_is_not_that_of_a_point(monkeypatch):
    """Otherwise each process of the job would run another point."""
    monkeypatch.setattr(launch, "TASK_ID", types.SimpleNamespace(value=None))
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "1")
    assert launch._task_id() == 1
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    common.refuses(r"JOB_COMPLETION_INDEX=1 numbers .*--task_id", lambda: launch._task_id())
    monkeypatch.setattr(launch, "TASK_ID", types.SimpleNamespace(value=-1))
    assert launch._task_id() is None


def test_a_script_under_sbatch_without_srun_is_a_lone_process_that_nobody_can_join(monkeypatch):
    """The coordinator listens on the loopback interface alone."""
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    monkeypatch.setenv("no_grpc_proxy", "")  # which is restored after the test
    with mock.patch.object(jax.distributed, "initialize") as initialize:
        joining.join_job()
    options = initialize.call_args.kwargs
    assert options["coordinator_bind_address"].startswith("127.0.0.1:")
    assert options["num_processes"] == 1
