"""Tests what is handed to queues: the texts, a manifest by its schema, and jobs of submitit."""

import io
import json
import os
import re
import sys
from pathlib import Path

import common
import jsonschema
import pytest
import yaml
from rich.console import Console

from experiments.running.submit import Job, command_without_own_flags, hand_over, make_backend

CONFIG = "--config=configs/extrapolation.py:paper"
COMMAND = "python", "launch.py", CONFIG, "--workdir=/mnt/My Run"
STAGES = {0: 2, 1: 3}


@pytest.fixture
def job(tmp_path):
    return Job(COMMAND, STAGES, tmp_path / "My Run")


def test_every_workdir_has_a_name_of_its_own(tmp_path, monkeypatch):
    """A queue would take a job for another one of the same name."""
    monkeypatch.chdir(tmp_path)
    folders = "My Run", "a/small", "b/small", "c" * 50, f"d/{'c' * 50}"
    names = [Job(COMMAND, STAGES, tmp_path / folder).name for folder in folders]
    assert re.fullmatch("posenc-my-run-[0-9a-f]{5}", names[0])
    assert len({*names}) == 5 and max(map(len, names)) <= 34
    assert Job(COMMAND, STAGES, Path("a/small")).name == names[1]


def test_flags_of_submission_are_no_part_of_the_job():
    flags = ["--backend=slurm", "--submit", "--resource=nodes=2", "--stage=1", "-submit"]
    assert command_without_own_flags([*COMMAND, *flags]) == COMMAND
    flags = ["--backend", "slurm", "--resource", "nodes=2", "--submit"]
    assert command_without_own_flags([*flags, *COMMAND]) == COMMAND


SBATCH = """#!/bin/sh
cp "$1" "$(mktemp -p {})"
echo "Submitted batch job 70"
"""


def test_slurm_has_an_array_for_each_stage_that_begins_after_the_one_before(
    job, tmp_path, monkeypatch
):
    """The scripts are those that a program named sbatch is given."""
    programs, scripts = tmp_path / "programs", tmp_path / "scripts"
    programs.mkdir(), scripts.mkdir()
    for name in ("sbatch", "srun"):
        (programs / name).write_text(SBATCH.format(scripts))
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=os.pathsep)
    settings = ["partition=gpu", "nodes=2", "gpus_per_node=8", "minutes=90", "mem_gb=64"]
    backend, console = make_backend("slurm", settings), Console(file=io.StringIO(), width=200)
    hand_over(backend, job, True, console)
    # The script of the second stage has a dependency too, and so is the longer one.
    first, second = sorted((path.read_text() for path in scripts.iterdir()), key=len)
    options = {line.removeprefix("#SBATCH --") for line in second.splitlines() if "SBATCH" in line}
    expected = "array=0-2%3 partition=gpu nodes=2 ntasks-per-node=1 gpus-per-node=8 time=90"
    expected += f" mem=64GB signal=USR2@120 requeue job-name={job.name}"
    assert {*expected.split(), "dependency=afterok:70"} < options
    assert "--cpus-per-task=8" in second.split("srun")[1]  # a step does not inherit it
    assert "--array=0-1%2" in first and "dependency" not in first
    told = console.file.getvalue()
    assert "dependency: afterok:ARRAY_OF_STAGE_0" in told and "submitted: 70, 70" in told
    assert f"# python launch.py {CONFIG} '--workdir=/mnt/My Run' --stage=1 --task_id=N" in told


def manifest(job, *settings):
    """Returns the JobSet of a job, after it was checked by the schema of JobSets."""
    made = yaml.safe_load(make_backend("jobset", ["image=i", "claim=disk", *settings]).file(job))
    schema = json.loads((Path(__file__).parent / "jobset_schema.json").read_text())
    jsonschema.validate(made, schema)
    return made, [one["template"]["spec"] for one in made["spec"]["replicatedJobs"]]


def test_a_jobset_on_gpus(job):
    made, (first, second) = manifest(job, "accelerator=nvidia-h100-80gb", "chips=8")
    stages = made["spec"]["replicatedJobs"]
    assert [(stage["name"], stage["replicas"]) for stage in stages] == [
        ("stage0", 2),
        ("stage1", 3),
    ]
    assert stages[1]["dependsOn"] == [{"name": "stage0", "status": "Complete"}]
    assert "dependsOn" not in stages[0] and first["completions"] == second["completions"] == 1
    pod = second["template"]["spec"]
    (container,) = pod["containers"]
    assert container["command"] == [*COMMAND, "--stage=1", "--task_id=$(POINT)"]
    assert "job-index" in str(container["env"][0])
    assert container["resources"]["limits"] == {"nvidia.com/gpu": 8}
    assert pod["nodeSelector"] == {"cloud.google.com/gke-accelerator": "nvidia-h100-80gb"}
    assert container["volumeMounts"][0]["mountPath"] == str(job.workdir)
    # What fails for good does not start again, and what was preempted does, alone.
    (rule,) = second["podFailurePolicy"]["rules"]
    assert rule == {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [1, 2]}}
    rules = made["spec"]["failurePolicy"]["rules"]
    assert [rule["action"] for rule in rules] == ["FailJobSet", "RestartJob"]


def test_a_jobset_on_several_hosts_of_a_tpu_slice(job):
    slice_of_16 = "accelerator=tpu-v5-lite-podslice", "topology=4x4", "hosts=4"
    made, (_, stage) = manifest(job, *slice_of_16, "max_restarts=7", "queue=mine")
    assert made["metadata"]["labels"] == {"kueue.x-k8s.io/queue-name": "mine"}
    (kept_apart,) = made["metadata"]["annotations"].items()  # all hosts are of one slice
    assert kept_apart[0].endswith("exclusive-topology") and kept_apart[1].endswith("gke-nodepool")
    assert made["spec"]["failurePolicy"]["maxRestarts"] == 7
    assert stage["parallelism"] == stage["completions"] == 4
    pod = stage["template"]["spec"]
    assert pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"] == "4x4"
    assert pod["containers"][0]["command"][-3:] == [
        f"--coordinator={job.name}-stage1-$(POINT)-0.{job.name}:1234",
        "--num_processes=4",
        "--process_id=$(HOST)",
    ]


def test_a_jobset_needs_all_hosts_of_a_slice(job):
    settings = ["image=i", "accelerator=tpu-v5", "topology=4x4", "hosts=1", "claim=disk"]
    common.refuses("topology", lambda: make_backend("jobset", settings).file(job))


def test_sky(job):
    settings = ["accelerators=H100:8", "bucket=gs://mine", "nodes=2"]
    text = make_backend("sky", settings).text(job)
    pipeline, command = text.split("\n\nsky")
    head, first, second = yaml.safe_load_all(pipeline)
    assert head == {"name": job.name} and second["name"] == f"{job.name}-1"
    assert first["resources"]["job_recovery"]["recover_on_exit_codes"] == [75]
    assert first["setup"].startswith('pip install "jax[cuda12]" -e "') and first["num_nodes"] == 2
    assert f"{CONFIG} '--workdir=/mnt/My Run' --stage=1 --task_id=\"$POINT\"" in second["run"]
    assert '"$SKYPILOT_NUM_NODES" 2)' in second["run"], "the last of three points"
    assert first["file_mounts"] == {str(job.workdir): {"source": "gs://mine", "mode": "MOUNT"}}
    assert command == f" jobs launch -y -d -n {job.name} pipeline.yaml"


def test_nothing_is_submitted_that_would_lose_its_results_or_adds_lines_to_a_script(job):
    console = Console(file=io.StringIO())
    sky, slurm = make_backend("sky", ["accelerators=H100:8"]), make_backend("slurm", [])
    common.refuses("BUCKET", lambda: hand_over(sky, job, False, console))
    lines = Job((*COMMAND, "--config.wandb=a\nb"), STAGES, job.workdir)
    common.refuses("more than one line", lambda: hand_over(slurm, lines, False, console))
    injected = ["partition=a\n#SBATCH --wrap=rm"]
    common.refuses("--resource='partition", lambda: make_backend("slurm", injected))


PREEMPTIBLE = """
import pathlib, signal, sys, time
begun, point = pathlib.Path(sys.argv[1]), sys.argv[2]
if begun.exists():
    begun.with_name("done").write_text(point)
    sys.exit(0)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
begun.write_text(point)
time.sleep(60)
"""


@pytest.mark.slow
def test_a_point_that_the_queue_ends_is_saved_and_goes_on(tmp_path):
    """Jobs of submitit run here: one is told to end, and the next goes on with its point."""
    import submitit

    from experiments.running.submit.slurm import Resumable

    begun = tmp_path / "begun"
    executor = submitit.LocalExecutor(tmp_path / "logs")
    # Ten seconds after the start, long before its limit, the queue says that the job must end. On a
    # busy machine a job takes seconds to start, and one that has not begun cannot be told.
    executor.update_parameters(timeout_min=1, signal_delay_s=50)
    job = executor.submit(Resumable([sys.executable, "-c", PREEMPTIBLE, str(begun), "--task_id=0"]))
    assert job.result() == 0
    assert (tmp_path / "done").read_text() == "--task_id=0"
