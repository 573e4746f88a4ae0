"""Tests the command line: in this process, and where a process is the subject in one of its own."""

import importlib
import random
import re
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import common
import jax
import pytest
import tiny_runs as runs
from absl import flags
from absl.testing import flagsaver
from tiny_runs import TINY

import launch
from experiments.registry import EXPERIMENTS
from experiments.running import command_line, pool
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
    assert "proxy" not in done.errors, "a warning of a variable that the user has not set"
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
    errors = runs.stopped(process)
    assert process.returncode == 75, errors
    assert "run again" in errors
    assert not (tmp_path / "runs/alibi").exists(), "went on to the next point"
    assert [p for p in (folder / "checkpoints").iterdir() if p.name.isdigit()]


@pytest.mark.parametrize("often", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_ctrl_c_is_one_sentence(corpus, tmp_path, often):
    """Also in a callback of the garbage collector, where Python ignores an exception and JAX has
    such a callback; and where threads of Orbax crashed the interpreter at its exit."""
    every = ["--config.train.checkpoint_every=10"] if often else []
    for number in range(2 if often else 1):
        workdir = tmp_path / str(number)
        (process,) = runs.start(1, workdir, corpus, *runs.ENDLESS["train"], *every)
        runs.wait_for(workdir / "runs/rope/seed0/metrics.jsonl")
        if often:
            time.sleep(3 * random.random())
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 130 and "the same command goes on" in errors
        assert "Traceback" not in errors


IMPORTS = """
import signal
from experiments.training import host

calls = []
host.keep_freed_memory = lambda: calls.append("mallopt")
import launch
assert not calls and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL, calls
"""


def test_an_import_of_launch_changes_nothing_in_the_process():
    done = runs.program("-c", IMPORTS)
    assert done.status == 0, done.errors


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
@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--status"], "1 missing"),
        (["--backend=sky", "--resource=accelerators=H100:8", "--resource=bucket=gs://b"], "seq"),
    ],
)
def test_a_machine_without_the_devices_of_the_mesh_submits_and_looks(corpus, tmp_path, flags, told):
    """A laptop hands a job to a pod, and asks what has become of it."""
    config = TINY, "--config.schemes=nope", f"--config.corpus={corpus}", "--config.mesh.fsdp=8"
    done = runs.program("launch.py", *config, f"--workdir={tmp_path}", *flags)
    assert done.status == 0 and told in done.output, done.errors
    assert not list(tmp_path.iterdir()), "nothing is written where nothing runs"


def test_a_report_of_what_is_done_trains_nothing(workdir, corpus):
    before = sorted(workdir.rglob("*"))
    schemes = "--config.schemes=rope,yarn,alibi,nope"
    where = TINY, f"--workdir={workdir}", f"--config.corpus={corpus}", schemes
    done = runs.command(*where, "--report")
    assert done.status == 0 and "report.html" in done.output
    assert "1 of 3 points have no result yet" in done.output and "--status" in done.output
    assert sorted(workdir.rglob("*")) == before


def test_a_job_of_a_queue_ends_well_once_the_failure_of_its_point_is_recorded(
    corpus, tmp_path, monkeypatch
):
    """The queue must neither repeat it nor keep later stages waiting; a person is told by a 1."""
    failure = {"scheme": "nope", "seed": 0, "reason": "loss nan"}
    monkeypatch.setattr(pool, "run_points", lambda *_: [failure])
    # Brackets in the name of a folder are text, though rich has tags that look like this.
    monkeypatch.setattr(Comparison, "write_report", lambda *_: "[/red]/report.html")
    command = TINY, f"--config.corpus={corpus}", f"--workdir={tmp_path}"
    job, stage, alone = (
        runs.command(*command, *more) for more in (["--task_id=0"], ["--stage=0"], [])
    )
    assert (job.status, stage.status, alone.status) == (0, 1, 1)
    assert "failed: nope seed 0: loss nan" in alone.output
    assert "report: [/red]/report.html" in alone.output


def test_a_workdir_that_cannot_be_written_is_told_once_and_not_by_each_point(corpus, tmp_path):
    folder = tmp_path / "file" / "run"
    folder.parent.write_text("")
    done = runs.command(TINY, f"--workdir={folder}", f"--config.corpus={corpus}")
    assert done.status == 2 and "FAILED" not in done.output
    assert done.errors.startswith(f"error: {folder} could not be written (Not a directory)")


@pytest.mark.slow
def test_a_checkpoint_that_a_full_disk_refuses_is_one_sentence(corpus, tmp_path):
    """TensorStore goes on with arrays that Orbax waits for no more, and fails once for each."""
    where = f"--workdir={tmp_path}", f"--config.corpus={corpus}", "--config.schemes=nope"
    with runs.full_disk(4096):
        done = runs.program("launch.py", TINY, *where, "--config.train.steps=2")
    assert done.status == 2 and "could not be written (File too large)" in done.output
    assert "Traceback" not in done.errors and "retrieved" not in done.errors


def test_the_command_line_says_what_is_wrong(tmp_path):
    where = f"--workdir={tmp_path}"
    for arguments, word in (
        ([TINY, where, "--config.schemes=nopee"], "'nopee' is no scheme.* did you mean 'nope'"),
        ([TINY, where, "--task_id=99"], "task_id=99"),
        (["--config=configs/nothing.py:small", where], "--config=configs/nothing.py is no file"),
        ([TINY, where, "--config.train.stepz=3"], '--config.train.stepz=3.*Did you mean "steps"'),
        ([TINY, where, "--config.train.steps=many"], "--config.train.steps"),
        ([TINY, where, "steps=3"], "'steps=3' is no flag"),
        ([TINY], "--workdir is missing"),
    ):
        done = runs.command(*arguments)
        assert done.status == 2, arguments
        assert re.match(f"error: .*{word}", done.errors), arguments
        assert "Traceback" not in done.errors


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"topology": "v5e:2x2"}, "--topology has no effect without --dry_run"),
        ({"submit": "true"}, "--submit has no effect without --backend"),
        ({"backend": "slurm", "status": "true"}, "--backend and --status ask for different things"),
        ({"backend": "sky", "task_id": "1"}, "--backend and --task_id ask for different"),
    ],
)
def test_a_flag_that_another_would_make_the_program_ignore_is_refused(given, message):
    with flagsaver.as_parsed(**given), pytest.raises(ValueError, match=message):
        flags.FLAGS.mark_as_parsed()
        command_line.check_together(launch._NEEDED, launch._APART)


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


# Numbers that queues give


def test_a_number_that_kubernetes_gives_to_a_process_is_not_that_of_a_point(monkeypatch):
    """Otherwise each process of the job would run another point."""
    monkeypatch.setattr(launch, "TASK_ID", types.SimpleNamespace(value=None))
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "1")
    assert launch._task_id() == 1
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    common.refuses(r"JOB_COMPLETION_INDEX=1 numbers .*--task_id", lambda: launch._task_id())
    monkeypatch.setattr(launch, "TASK_ID", types.SimpleNamespace(value=-1))
    assert launch._task_id() is None


@pytest.mark.slow
def test_a_script_under_sbatch_without_srun_is_a_lone_process_that_nobody_can_join():
    """The coordinator listens on the loopback interface alone."""
    if not Path("/proc/net/tcp").exists():
        pytest.skip("only Linux lists the sockets that a process listens on as files")
    program = """
import os
from experiments.joining import join_job
join_job()
mine = [os.readlink(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd") if
        os.path.islink(f"/proc/self/fd/{number}")]
for table in ("tcp", "tcp6"):
    for line in open(f"/proc/net/{table}").readlines()[1:]:
        _, address, _, state, *_, inode = line.split()[:10]
        if state == "0A" and f"socket:[{inode}]" in mine:
            print(address.split(":")[0])
"""
    done = runs.program("-c", program, SLURM_JOB_ID="1")
    assert done.status == 0, done.errors
    # 127.0.0.1, also as an address of IPv6; bytes come in the order of the machine.
    loopback = {"0100007F", "0000000000000000FFFF00000100007F"}
    listening = set(done.output.split())
    assert listening and listening <= loopback
