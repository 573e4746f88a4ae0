"""Tests what is handed to queues: the texts, and real jobs of submitit and of processes here."""

import io
import json
import re
import sys
import time
from pathlib import Path

import common
import pytest
import yaml
from rich.console import Console

from experiments.preemption import PreemptedError
from experiments.running.submit import Job, command_without_own_flags, hand_over, make_backend

CONFIG = "--config=configs/extrapolation.py:paper"
COMMAND = "python", "launch.py", CONFIG, "--workdir=/mnt/My Run"


@pytest.fixture
def job(tmp_path):
    return Job(COMMAND, 2, tmp_path / "My Run")


def test_names_and_commands(job):
    assert re.fullmatch("posenc-my-run-[0-9a-f]{5}", job.name)
    assert job.of_point(1) == f"python launch.py {CONFIG} '--workdir=/mnt/My Run' --task_id=1"


def test_every_workdir_and_submission_has_names_of_its_own(tmp_path, monkeypatch):
    """A queue would take a job for another one of the same name."""
    monkeypatch.chdir(tmp_path)
    folders = "a/small", "b/small", "c" * 50, f"d/{'c' * 50}"
    jobs = [Job(COMMAND, 2, tmp_path / folder, n) for folder in folders for n in (1, 2)]
    assert len({job.name for job in jobs}) == 8 and max(len(job.name) for job in jobs) <= 34
    assert Job(COMMAND, 2, Path("a/small")).name == jobs[0].name


def test_flags_of_submission_are_no_part_of_the_job():
    flags = ["--backend=slurm", "--submit", "--resource=nodes=2", "--noagain", "-submit"]
    assert command_without_own_flags([*COMMAND, *flags]) == COMMAND
    flags = ["--backend", "slurm", "--resource", "nodes=2", "--submit"]
    assert command_without_own_flags([*flags, *COMMAND]) == COMMAND


def test_slurm(job):
    settings = ["partition=gpu", "nodes=2", "gpus_per_node=8", "minutes=90", "mem_gb=64"]
    text = make_backend("slurm", settings).text(job)
    options = {line.removeprefix("#SBATCH --") for line in text.splitlines() if "SBATCH" in line}
    expected = "array=0-1%2 partition=gpu nodes=2 ntasks-per-node=1 gpus-per-node=8 time=90"
    expected += f" mem=64GB signal=USR2@120 requeue job-name={job.name}"
    assert {*expected.split()} < options
    assert "--cpus-per-task=8" in text.split("srun")[1]  # a step does not inherit it
    assert text.endswith(f"# {job.of_point('N')}")


def test_gke_on_gpus(job):
    settings = ["image=hub/posenc:1", "accelerator=nvidia-h100-80gb", "chips=8", "claim=disk"]
    first, second = yaml.safe_load_all(make_backend("gke", settings).file(job))
    names = [manifest["metadata"]["name"] for manifest in (first, second)]
    assert names == [f"{job.name}-0", f"{job.name}-1"]
    pod = second["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["command"] == [*COMMAND, "--task_id=1"]
    assert container["resources"]["limits"] == {"nvidia.com/gpu": 8}
    assert pod["nodeSelector"] == {"cloud.google.com/gke-accelerator": "nvidia-h100-80gb"}
    assert container["volumeMounts"][0]["mountPath"] == str(job.workdir)
    assert container["volumeMounts"][0]["name"] == pod["volumes"][0]["name"]


def test_gke_on_several_hosts_of_a_tpu_slice(job):
    settings = ["image=i", "accelerator=tpu-v5-lite-podslice", "topology=4x4", "hosts=4"]
    settings += ["max_restarts=7", "queue=mine", "claim=disk"]
    manifest, _ = make_backend("gke", settings).manifests(job)
    assert manifest["apiVersion"] == "jobset.x-k8s.io/v1alpha2"
    assert manifest["metadata"]["labels"] == {"kueue.x-k8s.io/queue-name": "mine"}
    # All hosts are of one slice.
    (kept_apart,) = manifest["metadata"]["annotations"].items()
    assert kept_apart[0].endswith("exclusive-topology") and kept_apart[1].endswith("gke-nodepool")
    assert manifest["spec"]["failurePolicy"]["maxRestarts"] == 7
    spec = manifest["spec"]["replicatedJobs"][0]["template"]["spec"]
    assert spec["parallelism"] == spec["completions"] == 4 and spec["completionMode"] == "Indexed"
    # A point that has failed for good does not start again, and one that was preempted does.
    (rule,) = spec["podFailurePolicy"]["rules"]
    assert rule == {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [1, 2]}}
    pod = spec["template"]["spec"]
    assert pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"] == "4x4"
    assert pod["containers"][0]["command"][-3:] == [
        f"--coordinator={job.name}-0-host-0-0.{job.name}-0:1234",
        "--num_processes=4",
        "--process_id=$(HOST)",
    ]
    (variable,) = pod["containers"][0]["env"]
    assert variable["name"] == "HOST" and "job-completion-index" in str(variable)


@pytest.mark.parametrize(
    "setting", ["hosts=1", "topology=v5litepod-16", "topology=", "accelerator=l4"]
)
def test_gke_needs_all_hosts_of_a_slice(job, setting):
    settings = ["image=i", "accelerator=tpu-v5", "topology=4x4", "hosts=4", "claim=disk", setting]
    backend = make_backend("gke", settings)
    common.refuses("--resource=topology", lambda: backend.file(job))


def test_xpk(job):
    backend = make_backend("xpk", ["cluster=c", "tpu_type=v5litepod-16", "docker_image=i"])
    _, second = backend.commands(job, "")
    assert second[:3] == ["xpk", "workload", "create"]
    assert {"--cluster=c", "--tpu-type=v5litepod-16", "--docker-image=i"} < set(second)
    assert {f"--workload={job.name}-1", "--restart-on-exit-codes=75"} < set(second)
    assert "--termination-grace-period-seconds=120" in second  # xpk's own default is 30
    assert second[-1] == f"--command={job.of_point(1)}"


def test_tpu_vm(job):
    settings = ["zone=us-west4-a", "type=v5litepod-16", "runtime=r", "setup=cd posenc_jax"]
    text = make_backend("tpu_vm", [*settings, "spot=false"]).text(job)
    script, command = text.split("\n\n")
    assert script == f"#! /bin/bash\ncd posenc_jax && {job.all_points()}"
    assert command.startswith(f"gcloud compute tpus queued-resources create {job.name} ")
    assert command.endswith("--metadata-from-file=startup-script=SCRIPT")


def test_sky(job):
    settings = ["accelerators=H100:8", "bucket=gs://mine", "nodes=2"]
    text = make_backend("sky", settings).text(job)
    task, commands = text.split("\n\n")
    task = yaml.safe_load(task)
    assert task["resources"]["job_recovery"]["recover_on_exit_codes"] == [75]
    assert task["setup"].startswith('pip install "jax[cuda12]" -e "')
    assert task["num_nodes"] == 2 and "--process_id=$SKYPILOT_NODE_RANK" in task["run"]
    assert task["file_mounts"] == {str(job.workdir): {"source": "gs://mine", "mode": "MOUNT"}}
    last = f"sky jobs launch -y -d -n {job.name}-1 --env POINT=1 task.yaml"
    assert commands.splitlines()[-1] == last


@pytest.mark.parametrize(
    ("backend", "settings", "message"),
    [
        ("pbs", [], "--backend='pbs'"),
        ("slurm", ["gpus=8"], "--resource=gpus=8"),
        ("slurm", ["nodes=two"], "--resource=nodes=two"),
        ("gke", ["image=i"], "--resource=accelerator="),
    ],
)
def test_wrong_settings_are_one_sentence(backend, settings, message):
    common.refuses(message, lambda: make_backend(backend, settings))


def submitted(backend, job, **flags):
    console = Console(file=io.StringIO())
    hand_over(backend, job, **{"submit": True, "again": False, "console": console} | flags)
    return console.file.getvalue()


def test_nothing_is_submitted_without_being_asked_or_twice(tmp_path):
    marks = "import sys; open(sys.argv[1], 'a').write('x')"
    mark = tmp_path / "mark"
    job = Job((sys.executable, "-c", marks, str(mark)), 1, tmp_path / "work")
    backend = make_backend("local", [])
    submitted(backend, job, submit=False)
    assert not mark.exists() and not job.workdir.exists()
    assert "submitted: " in submitted(backend, job)
    common.refuses("--again", lambda: submitted(backend, job))
    submitted(backend, job, again=True)
    assert mark.read_text() == "xx"


def test_sigterm_reaches_the_processes_of_this_machine(tmp_path):
    program = (
        "import os, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))\n"
        "os.kill(os.getppid(), signal.SIGTERM)\n"
        "time.sleep(30)"
    )
    with pytest.raises(PreemptedError, match="--again"):
        submitted(make_backend("local", []), Job(("python", "-c", program), 1, tmp_path))


def test_a_submission_that_failed_is_not_forgotten(tmp_path):
    job = Job((sys.executable, "-c", "raise SystemExit(3)"), 1, tmp_path)
    for word in ("status 3", "--again"):
        common.refuses(word, lambda: submitted(make_backend("local", []), job))


def test_processes_of_one_run_are_told_of_each_other(tmp_path):
    keeps = "import sys; open(sys.argv[1] + sys.argv[-1], 'w').write(' '.join(sys.argv[2:]))"
    job = Job((sys.executable, "-c", keeps, f"{tmp_path}/"), 1, tmp_path / "work")
    submitted(make_backend("local", ["processes=2"]), job)
    words = [(tmp_path / f"--process_id={number}").read_text().split() for number in (0, 1)]
    assert words[0][:2] == words[1][:2] and words[0][1] == "--num_processes=2"
    assert words[0][0].startswith("--coordinator=127.0.0.1:")


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
    job = executor.submit(Resumable((sys.executable, "-c", PREEMPTIBLE, str(begun), "--task_id=0")))
    assert job.result() == 0
    assert (tmp_path / "done").read_text() == "--task_id=0"


def test_jobs_of_an_array_run_their_points(tmp_path):
    notes = "import sys; open(sys.argv[1] + sys.argv[2], 'w')"
    job = Job((sys.executable, "-c", notes, f"{tmp_path}/"), 2, tmp_path / "work")
    submitted(make_backend("slurm", ["cluster=local"]), job)
    deadline, expected = time.monotonic() + 60, [tmp_path / f"--task_id={n}" for n in (0, 1)]
    while not all(path.exists() for path in expected) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert all(path.exists() for path in expected)
    assert len(json.loads((job.workdir / "submitted.json").read_text())["jobs"]) == 2
