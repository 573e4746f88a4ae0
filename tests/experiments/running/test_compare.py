"""Tests the comparison and its command line, at a size that runs in seconds."""

import importlib
import io
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import common
import jax
import pytest
from absl import flags
from absl.testing import flagsaver
from rich.console import Console

import experiments.running.sweep as sweep
import launch as launch_module
from configs.extrapolation import PRESETS, SMALL, get_config
from experiments import preemption
from experiments.registry import EXPERIMENTS
from experiments.results.record import claimed
from experiments.running.points import trained_points
from experiments.running.schedule import Schedule
from experiments.running.status import print_status
from experiments.studies.text import Comparison, points
from experiments.training.loop import train, train_together
from posenc_jax import REGISTRY
from posenc_jax.registry import PATTERNS

ROOT = common.ROOT


def config(files, **changes):
    config = get_config("tiny")
    config.corpus = files
    config.schemes = "rope,yarn,alibi"
    return common.changed(config, **changes)


def comparison(config, workdir):
    output = io.StringIO()
    return Comparison(config, workdir, Console(file=output, width=200)), output


@pytest.fixture(scope="module")
def finished(corpus, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("finished")
    one, output = comparison(config(corpus), workdir)
    assert one.run() == []
    path = one.write_report("the command")
    return workdir, path, output.getvalue()


@pytest.mark.slow
def test_results_hold_every_scheme_length_and_protocol(finished):
    workdir, path, output = finished
    assert path == workdir / "report.html" and "the command" in path.read_text()
    records = json.loads((workdir / "results.json").read_text())["records"]
    found = {(r["scheme"], r["protocol"], r["multiple"]) for r in records}
    for scheme in ("rope", "yarn", "alibi"):
        for protocol in ("last", "non_overlapping", "sliding"):
            assert {(scheme, protocol, 1), (scheme, protocol, 2)} <= found
        assert (scheme, "windowed", 1) in found
    assert (workdir / "results.csv").read_text().count("\n") == len(records) + 1
    for scheme in ("rope", "yarn", "alibi"):
        assert scheme in output


@pytest.mark.parametrize("scheme", ["rope", "fox", "randomized"])
def test_windows_that_begin_alike_have_the_losses_of_those_scored_alone(
    corpus, tmp_path, monkeypatch, scheme
):
    """Randomized positions depend on the length: their windows must not stand for others."""
    one, _ = comparison(config(corpus, schemes=scheme), tmp_path)
    model = jax.jit(one.task(one.points[0]).init)(jax.random.key(0))
    model = jax.tree.map(lambda x: 8 * x, model)  # so that positions matter without training
    found = one.evaluate(one.points[0], model)
    monkeypatch.setattr("experiments.studies.text._adapts", lambda model: True)
    alone = one.evaluate(one.points[0], model)
    for key in ("records", "curves"):
        for once, each in zip(found[key], alone[key], strict=True):
            assert once == {name: pytest.approx(value) for name, value in each.items()}


def test_fewer_windows_than_asked_for_are_said(corpus, tmp_path):
    one, output = comparison(config(corpus, schemes="rope", eval__documents=500), tmp_path)
    count = len(one.documents["test"])
    assert 0 < count < 500
    assert f"eval.documents=500, but test has only {count} windows of" in output.getvalue()


def test_an_extension_is_evaluated_on_the_checkpoint_it_extends(finished):
    workdir, _, _ = finished
    assert sorted(p.name for p in (workdir / "runs").iterdir()) == ["alibi", "rope"]
    records = json.loads((workdir / "results.json").read_text())["records"]

    def loss(scheme, multiple):
        return next(
            r["loss"]
            for r in records
            if (r["scheme"], r["protocol"], r["multiple"]) == (scheme, "last", multiple)
        )

    # At the training length YaRN's factor is 1, which changes nothing; beyond it does.
    assert loss("yarn", 1) == pytest.approx(loss("rope", 1), abs=1e-6)
    assert loss("yarn", 2) != pytest.approx(loss("rope", 2), abs=1e-6)


def test_an_extension_shares_the_settings_its_checkpoint_was_trained_with(corpus, tmp_path):
    changes = {"encodings__rope__base": 77.0, "encodings__yarn__beta_fast": 5.0}
    one, _ = comparison(config(corpus, **changes), tmp_path)
    yarn = one._extension("yarn", 2)
    assert yarn.base == 77.0
    assert (yarn.frequencies.beta_fast, yarn.frequencies.factor) == (5.0, 2.0)


def test_derived_settings_follow_an_overridden_length():
    config = get_config("small")
    config.train.length = 256
    assert config.encodings.fire.init_length == 64.0
    assert config.encodings.t5.max_distance == 128
    config.model.num_heads = 8
    assert config.encodings.t5.table_scale == 16**0.5


def test_run_json_records_what_a_figure_must_be_quoted_with(finished):
    run = json.loads((finished[0] / "runs/rope/seed0/run.json").read_text())
    assert run["config"]["train"]["length"] == 32 and run["config"]["seed"] == 0
    assert len(run["config"]["corpus_digest"]) == 64
    assert run["versions"]["jax"] == jax.__version__ and run["device"] and run["git"]


def test_each_point_is_printed_in_the_unit_of_the_table(finished):
    workdir, _, output = finished
    cells = bits_of(workdir)
    for scheme in ("rope", "yarn", "alibi"):
        line = f"{scheme:<15} 1x {cells[scheme, 1]:.3f}  2x {cells[scheme, 2]:.3f}  bits per byte"
        assert line in output


def bits_of(workdir):
    """Returns the main results in bits per byte by scheme and multiple."""
    records = json.loads((workdir / "results.json").read_text())["records"]
    return {
        (r["scheme"], r["multiple"]): r["bits_per_byte"]
        for r in records
        if (r["split"], r["protocol"]) == ("test", "last")
    }


def test_a_second_run_does_nothing_again(finished, corpus, monkeypatch):
    workdir, _, _ = finished
    monkeypatch.setattr(sweep, "train", lambda *a, **k: pytest.fail("trained again"))
    again, output = comparison(config(corpus), workdir)
    assert again.run() == []
    assert "2 of 2 were done before" in output.getvalue()


@pytest.mark.slow
def test_of_several_learning_rates_each_scheme_is_reported_at_its_best(corpus, tmp_path):
    rates = (1e-3, 1e-2)
    one, _ = comparison(
        config(corpus, schemes="rope,pi,alibi", sweep__learning_rate=rates), tmp_path
    )
    assert [point.name for point in one.points] == [
        f"{scheme}/rate{rate}/seed0" for scheme in ("rope", "alibi") for rate in rates
    ]
    assert one.run() == []
    tried = one.rates()
    assert tried.keys() == {"rope", "alibi"}
    evaluations, training, _ = one.results()
    assert {r["scheme"] for r in training} == {"rope", "pi", "alibi"} and len(evaluations) == 2
    for scheme, losses in tried.items():
        best = min(losses, key=losses.get)
        assert losses[best] < max(losses.values())
        run = json.loads((tmp_path / f"runs/{scheme}/rate{best:g}/seed0/run.json").read_text())
        assert run["config"]["train"]["learning_rate"] == best
        final = next(r["final_loss"] for r in training if r["scheme"] == scheme)
        assert final == pytest.approx(losses[best], rel=1e-6)  # six steps have one line
    page = one.write_report("the command").read_text()
    assert "Learning rates" in page and f"<td><b>{min(tried['rope'].values()):.3f}" in page
    (tmp_path / "runs/rope/rate0.001/seed0/metrics.jsonl").write_text("")
    assert one.rates()["rope"][1e-3] == math.inf
    page = one.write_report("the command").read_text()
    assert "<td>no result" in page and "not finite" not in page


@pytest.mark.parametrize("rates", [(1e-3,), (1e-3, 1e-3), 1e-3])
def test_rates_that_are_no_sweep_are_refused(rates):
    with pytest.raises(ValueError, match=r"sweep\.learning_rate=.* must be several rates"):
        trained_points(["rope"], {}, 1, rates)


def test_rates_that_would_share_a_folder_are_refused():
    with pytest.raises(ValueError, match="must differ in their first six digits"):
        trained_points(["rope"], {}, 1, (1.00001e-3, 1.000012e-3))


@pytest.mark.parametrize("rates", [(1e-3, math.inf), (1e-3, math.nan), (1e-3, "fast")])
def test_rates_that_are_no_numbers_are_refused(rates):
    with pytest.raises(ValueError, match="must be numbers above 0, and finite"):
        trained_points(["rope"], {}, 1, rates)


def test_another_config_in_the_same_place_is_refused(finished, corpus):
    workdir, _, _ = finished
    other, _ = comparison(config(corpus, train__learning_rate=0.1), workdir)
    failures = other.run()
    assert "train.learning_rate was 0.003 and is now 0.1" in failures[0]["reason"]
    assert "--workdir" in failures[0]["reason"]


def test_a_refused_command_leaves_the_report_and_the_runs_as_they_are(finished, corpus, tmp_path):
    workdir = tmp_path / "copy"
    shutil.copytree(finished[0], workdir)
    before = (workdir / "results.csv").read_text()
    other, _ = comparison(config(corpus, train__learning_rate=0.1), workdir)
    assert len(other.run()) == 2
    with pytest.raises(ValueError, match="no point has a result or has failed"):
        other.write_report("the command")
    assert (workdir / "results.csv").read_text() == before
    # A later command would show the reason of this one, which is none of its own.
    again, _ = comparison(config(corpus, eval__documents=1), workdir)
    assert [again.failure(point) for point in again.points] == [None, None]


def test_results_of_another_config_are_not_those_of_this_one(finished, corpus):
    """Nothing is found done, and nothing is reported, that was trained in another way."""
    workdir, _, _ = finished
    other, output = comparison(config(corpus, train__steps=400), workdir)
    assert other.results()[0] == [] and other.finished_runs() == []
    print_status(other, other.console)
    assert "2 failed" in output.getvalue()
    assert "train.steps was 6 and is now 400" in " ".join(output.getvalue().split())


def test_results_of_other_data_are_shown_and_not_gone_on_with(finished, corpus, tmp_path):
    """Another Python has other sources under the same name."""
    workdir = tmp_path / "elsewhere"
    shutil.copytree(finished[0], workdir)
    for path in workdir.rglob("run.json"):
        run = json.loads(path.read_text())
        run["config"]["corpus_digest"] = "another"
        path.write_text(json.dumps(run))
    one, _ = comparison(config(corpus), workdir)
    assert len(one.results()[0]) == 2
    assert "another" in one.write_report("the command").read_text()
    with pytest.raises(ValueError, match=r"trained on other data of the same name.*--report"):
        one.run()


def test_another_evaluation_uses_the_trained_checkpoint(finished, corpus, tmp_path):
    workdir, _, _ = finished
    other, _ = comparison(config(corpus, eval__documents=1), workdir)
    assert other.run(task_id=0) == []
    metrics = (workdir / "runs/rope/seed0/metrics.jsonl").read_text().splitlines()
    assert len(metrics) == 1, "trained again"
    comparison(config(corpus), workdir)[0].run()


@pytest.mark.slow
def test_one_scheme_failing_leaves_the_others(corpus, tmp_path, monkeypatch):
    def failing(task, *args, **kwargs):
        if task.spec.encoding.name == "rope":
            raise FloatingPointError("loss nan at step 3")
        return train(task, *args, **kwargs)

    monkeypatch.setattr(sweep, "train", failing)
    one, output = comparison(config(corpus), tmp_path)
    failures = one.run()
    assert [f["scheme"] for f in failures] == ["rope"]
    assert "loss nan at step 3" in output.getvalue()
    page = one.write_report("command").read_text()
    assert "alibi" in page and "loss nan at step 3" in page
    assert "Traceback" in (tmp_path / "runs/rope/seed0/failure.json").read_text()
    # Mended, the failure goes away.
    monkeypatch.setattr(sweep, "train", train)
    again, _ = comparison(config(corpus), tmp_path)
    assert again.run() == [] and not (tmp_path / "runs/rope/seed0/failure.json").exists()


@pytest.mark.slow
def test_seeds_train_together_and_are_evaluated_apart(corpus, tmp_path):
    one, output = comparison(config(corpus, seeds=3, together=2), tmp_path)
    assert one.run() == []
    order = [
        f"{name}/seed{seed}"
        for seeds in ((0, 1), (2,))
        for name in ("rope", "alibi")
        for seed in seeds
    ]
    lines = [line.split()[-1] for line in output.getvalue().splitlines() if line.startswith("[")]
    assert lines == order
    evaluations, _, failures = one.results()
    assert len(evaluations) == 6 and not failures
    again, output = comparison(config(corpus, seeds=3, together=2), tmp_path)
    assert again.run() == [] and "6 of 6 were done before" in output.getvalue()


@pytest.mark.slow
def test_a_seed_that_failed_leaves_those_it_was_trained_with(corpus, tmp_path, monkeypatch):
    def failing(*args, folders, **kwargs):
        found = train_together(*args, folders=folders, **kwargs)
        return found | {1: FloatingPointError("loss nan at step 3")}

    common.set_cores(monkeypatch, 2)
    monkeypatch.setattr(sweep, "train_together", failing)
    one, _ = comparison(config(corpus, schemes="alibi", seeds=2, together=2), tmp_path)
    assert [(f["scheme"], f["seed"]) for f in one.run()] == [("alibi", 1)]
    assert len(one.results()[0]) == 1


@pytest.mark.slow
def test_seeds_that_cannot_be_one_program_train_apart(corpus, tmp_path, monkeypatch):
    def failing(*args, **kwargs):
        raise MemoryError("too much for one program")

    common.set_cores(monkeypatch, 2)
    monkeypatch.setattr(sweep, "train_together", failing)
    one, output = comparison(config(corpus, schemes="alibi", seeds=2, together=2), tmp_path)
    assert one.run() == []
    assert "2 seeds apart" in output.getvalue() and "too much for one" in output.getvalue()


def test_on_one_core_each_seed_is_trained_alone(corpus, tmp_path, monkeypatch):
    common.set_cores(monkeypatch, 1)
    monkeypatch.setattr(sweep, "train_together", pytest.fail)
    one, output = comparison(config(corpus, schemes="alibi", seeds=2, together=2), tmp_path)
    monkeypatch.setattr(Schedule, "_try_point", lambda *_: None)
    assert one.run() == [] and "seeds apart" not in output.getvalue()


def test_a_second_program_on_the_same_run_is_refused_by_name(finished, corpus):
    workdir, _, _ = finished
    with claimed(workdir / "runs/rope/seed0"):
        failures = comparison(config(corpus), workdir)[0].run()
    assert [f["scheme"] for f in failures] == ["rope"]
    assert re.search(rf"in use by process {os.getpid()} on .* since 20", failures[0]["reason"])
    assert comparison(config(corpus), workdir)[0].run() == [], "it was given back"


def test_a_failure_is_forgotten_when_the_point_is_tried_again(corpus, tmp_path, monkeypatch):
    """It is preempted then: what it failed of the first time, a full disk, is no longer so."""

    def failing(*_, **__):
        raise OSError("no space left")

    def preempted(*_, **__):
        raise preemption.PreemptedError("asked to stop")

    one, output = comparison(config(corpus, schemes="nope"), tmp_path)
    monkeypatch.setattr(sweep, "train", failing)
    assert len(one.run()) == 1
    monkeypatch.setattr(sweep, "train", preempted)
    with pytest.raises(preemption.PreemptedError):
        one.run()
    output.truncate(0)
    print_status(one, one.console)
    assert "failed" not in output.getvalue()


def test_status_says_what_has_become_of_every_point(finished, corpus, tmp_path):
    shutil.copytree(finished[0] / "runs", tmp_path / "runs")
    one, output = comparison(config(corpus, schemes="rope,yarn,alibi,nope,t5", seeds=2), tmp_path)
    folder = {point.name: one.folder(point) for point in one.points}
    line = json.dumps({"step": 2, "seconds": 30.0, "tokens_per_second": 1234.5})
    for name in ("nope/seed0", "t5/seed0"):
        folder[name].mkdir(parents=True)
        (folder[name] / "metrics.jsonl").write_text(f"{line}\n{line[:5]}")
    failure = {"scheme": "t5", "seed": 1, "reason": "loss nan at step 3"}
    folder["t5/seed1"].mkdir()
    (folder["t5/seed1"] / "failure.json").write_text(json.dumps(failure))
    with claimed(folder["nope/seed0"]):
        print_status(one, one.console)
    lines = {words[0]: words for each in output.getvalue().splitlines() if (words := each.split())}
    assert lines["rope/seed0"][1:] == ["done", "6/6"] and lines["rope/seed1"][1:3] == [
        "missing",
        "0/6",
    ]
    assert lines["nope/seed0"][1:4] == ["running", "2/6", "1234"]
    assert (
        f"process {os.getpid()} on" in output.getvalue()
        and "trained in 0:01:00" in output.getvalue()
    )
    assert lines["t5/seed0"][1:] == ["stopped", "2/6"]
    assert lines["t5/seed1"][1] == "failed" and "loss nan at step 3" in output.getvalue()
    assert "2 done, 1 running, 1 failed, 1 stopped, 3 missing" in output.getvalue()


def test_seeds_that_are_trained_as_one_have_its_time_left(corpus, tmp_path):
    """The seconds of each are its share of those that have passed, unless it is trained alone."""
    one, output = comparison(config(corpus, schemes="nope", seeds=3, together=2), tmp_path)
    folder, other, _ = map(one.folder, one.points)
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text(json.dumps({"step": 2, "seconds": 30.0}) + "\n")
    with claimed(folder), claimed(other):
        print_status(one, one.console)
        assert "trained in 0:02:00" in output.getvalue()
        pid = {"process": os.getpid(), "since": "today"}
        for others in (json.dumps({"host": "another"} | pid), "a sentence of an earlier version"):
            (other / "lock").write_text(others)
            output.truncate(0)
            print_status(one, one.console)
            assert "trained in 0:01:00" in output.getvalue()
        assert "by another program" in output.getvalue()


WRITTEN_OUT = "global_nope", "beam", "flint"  # for any number of layers


def test_points_are_every_trained_scheme_under_every_seed():
    config = get_config("small")
    found = points(config)
    trained = [name for name in SMALL.split(",") if name not in config.extend]
    assert len(found) == 3 * len(trained) == 33
    assert [p.scheme for p in found[: len(trained)]] == trained
    assert found[trained.index("rope")].extensions == ("pi", "ntk", "dynamic_ntk", "yarn")
    config.schemes = "all"
    everything = {name for p in points(config) for name in (p.scheme, *p.extensions)}
    assert everything == set(REGISTRY) - set(PATTERNS) | set(WRITTEN_OUT)


@pytest.mark.parametrize(
    ("num_layers", "fit"),
    [
        (2, WRITTEN_OUT),
        (4, ("irope", "rnope_swa", "global_yarn", *WRITTEN_OUT)),
        (6, ("dual_base", *WRITTEN_OUT)),
        (12, PATTERNS),
    ],
)
def test_points_have_the_patterns_that_fit_the_layers(num_layers, fit):
    config = get_config("tiny")
    config.schemes = "all"
    config.model.num_layers = num_layers
    schemes = [point.scheme for point in points(config)]
    assert {name for name in schemes if name in PATTERNS} == {*fit}
    config.schemes = "irope"
    assert [point.scheme for point in points(config)] == ["irope"]


@pytest.mark.slow
def test_patterns_that_do_not_fit_are_named(corpus, tmp_path):
    _, output = comparison(config(corpus, schemes="all"), tmp_path)
    for name in PATTERNS:
        message = f"{name} is left out: it does not divide model.num_layers=2"
        assert (message in output.getvalue()) == (name not in WRITTEN_OUT)


@pytest.mark.slow
def test_a_pattern_is_trained_and_evaluated(corpus, tmp_path):
    one, _ = comparison(config(corpus, schemes="rnope_swa", model__num_layers=4), tmp_path)
    assert one.config["encodings"]["rnope_swa"]["window"] == one.recipe.length // 2
    assert one.run() == []


@pytest.mark.slow
@pytest.mark.parametrize("preset", PRESETS)
def test_presets_describe_models_that_exist(preset, tmp_path):
    config = get_config(preset)
    config.corpus = "stdlib"
    one, _ = comparison(config, tmp_path)
    assert one.protocols.document_length(one.recipe.length) == one.documents["test"].shape[1]


@pytest.mark.parametrize(
    "changes,message",
    [
        ({"schemes": "rope,alibbi"}, "alibbi.*did you mean 'alibi'"),
        ({"schemes": "yarn"}, "add rope to schemes"),
        ({"seeds": 0}, "seeds=0"),
        ({"together": 0}, "together=0 must be at least 1"),
        ({"model__causal": False}, "model.causal=False shows the model the tokens that it must"),
        ({"schemes": "rope,alibi,rope"}, "schemes has rope more than once"),
        (
            {"train__learning_rate": float("nan")},
            "train.learning_rate=nan must be finite",
        ),
        ({"eval__last_tokens": 0}, "eval.last_tokens=0 must be at least 1"),
        ({"eval__batch_tokens": 0}, "eval.batch_tokens=0 must be at least 1"),
        ({"eval__splits": ("foo",)}, r"eval.splits=\('foo',\) must be some of"),
        ({"eval__strides": (8, 2)}, r"eval.strides=\(8, 2\) must have the form of its default"),
        ({"eval__strides": ((8.0, 2),)}, "eval.strides=.* must have the form of its default"),
        ({"eval__multiples": (1, 1.5, 3)}, "eval.multiples=.* must have the form of its default"),
        ({"eval__strides": ((-8, 2),)}, "eval.strides: -8 must divide"),
        ({"corpus": "files:nowhere/*.txt"}, "'files:nowhere/.*no files found"),
        ({"train__length": 5000, "eval__last_tokens": 16}, "5001 tokens.*the longest has"),
        ({"train__batch_size": 8 * 10**7}, "smaller than one batch: it has .* batch_size=80000000"),
        (
            {"schemes": "randomized", "encodings__randomized__max_length": 40},
            "randomized under the longest of eval.multiples: 64 positions cannot be drawn from "
            "max_length=40",
        ),
        ({"train__batch_size": 12}, "train.batch_size=12 must be a multiple of 8"),
        ({"mesh__data": 3}, "mesh=.*8"),
        ({"eval__last_tokens": 64}, "at most the training length"),
        ({"model__num_heads": 5}, "num_heads=5"),
        ({"model__num_heads": 0}, "num_heads=0 must be at least 1"),
        ({"model__num_layers": 0}, "num_layers=0 must be"),
        ({"model__dtype": "int8"}, "dtype='int8' must be a floating-point type"),
        ({"model__dtype": "float8"}, "dtype='float8' must be a floating-point type"),
        ({"extend__yarn__factor": "length/0"}, "'length/0' must be length/N"),
        ({"schemes": "irope"}, "a pattern of 4 encodings does not repeat evenly over 2 layers"),
        ({"model__model_dim": 36, "model__head_dim": 9}, "even"),
    ],
)
def test_bad_configs_are_refused_before_anything_is_trained(corpus, tmp_path, changes, message):
    with pytest.raises((ValueError, TypeError), match=message):
        comparison(config(corpus, **changes), tmp_path)
    assert not (tmp_path / "runs").exists()


FLAGS = "--xla_force_host_platform_device_count=1 --xla_backend_optimization_level=0"


def launch(*arguments, **environment):
    return run_python("launch.py", *arguments, **environment)


def run_python(*arguments, **environment):
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=os.environ | {"XLA_FLAGS": FLAGS} | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


# Each far longer than the second that JAX may take to notice the signal, on the slowest machine.
ENDLESS = {
    "train": ["--config.train.steps=100000"],
    "evaluate": [
        "--config.corpus=stdlib",
        "--config.eval.documents=10000",
        "--config.eval.strides=((1, 10000),)",
    ],
}


@pytest.mark.slow
@pytest.mark.parametrize("stage", ENDLESS)
def test_sigterm_stops_any_stage(corpus, tmp_path, stage):
    command = [
        sys.executable,
        "launch.py",
        "--config=configs/extrapolation.py:tiny",
        f"--workdir={tmp_path}",
        f"--config.corpus={corpus}",
        "--config.schemes=nope,alibi",
        "--config.eval.batch_tokens=32",
        *ENDLESS[stage],
    ]
    folder = tmp_path / "runs/nope/seed0"
    begun = folder / ("metrics.jsonl" if stage == "train" else "checkpoints/6/_CHECKPOINT_METADATA")
    process = subprocess.Popen(
        command, cwd=ROOT, env=os.environ | {"XLA_FLAGS": FLAGS}, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while not (begun.exists() and begun.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 75, errors
    assert "run again" in errors
    assert not (tmp_path / "runs/alibi").exists(), "went on to the next point"
    assert [p for p in (folder / "checkpoints").iterdir() if p.name.isdigit()]


@pytest.mark.parametrize(
    "command",
    [
        ["launch.py", "--config=configs/extrapolation.py:tiny", "--workdir"],
        ["-m", "experiments.evaluation.long_document", "--run=r", "--document=d", "--out"],
    ],
    ids=["launch", "long_document"],
)
def test_sigterm_at_the_start_asks_for_another(tmp_path, command):
    """Before anything is done, there is nothing to save, but the queue must run it again."""
    process = subprocess.Popen(
        [sys.executable, "-X", "importtime", *command, str(tmp_path / "place")],
        cwd=ROOT,
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
        (
            [
                "--backend=tpu_vm",
                *(f"--resource={n}=x" for n in ("zone", "type", "runtime", "setup")),
            ],
        )
        + ("gcloud compute tpus",),
    ],
)
def test_a_machine_without_the_devices_of_the_mesh_submits_and_looks(corpus, tmp_path, flags, told):
    """A laptop hands a job to a pod, and asks what has become of it."""
    config = ["--config=configs/extrapolation.py:tiny", "--config.schemes=nope"]
    config += [f"--config.corpus={corpus}", "--config.mesh.fsdp=8"]
    done = launch(*config, f"--workdir={tmp_path}", *flags)
    assert done.returncode == 0 and told in done.stdout, done.stderr
    assert not list(tmp_path.iterdir()), "nothing is written where nothing runs"


def test_a_report_says_how_many_points_it_does_not_have():
    points = types.SimpleNamespace(points=[1, 2, 3], finished=lambda point: point == 2)
    told = io.StringIO()
    experiment = types.SimpleNamespace(parts={"": points})
    launch_module._print_missing(experiment, Console(file=told, width=200))
    assert "2 of 3 points have no result yet" in told.getvalue() and "--status" in told.getvalue()


def test_every_config_names_an_experiment_that_launch_knows():
    named = set()
    for path in (ROOT / "configs").glob("[!_]*.py"):
        config = importlib.import_module(f"configs.{path.stem}").get_config("tiny")
        named |= {
            config.experiment,
            *(one.experiment for one in config.get("studies", {}).values()),
        }
    assert named == set(EXPERIMENTS)
    for name in named:
        module, _, attribute = EXPERIMENTS[name].partition(":")
        assert hasattr(importlib.import_module(module), attribute)


@pytest.mark.slow
def test_command_line_runs_one_point_and_reports(corpus, tmp_path):
    done = launch(
        "--config=configs/extrapolation.py:tiny",
        f"--workdir={tmp_path}",
        f"--config.corpus={corpus}",
        "--config.schemes=alibi,nope",
        "--config.train.steps=2",
        SLURM_ARRAY_TASK_ID="1",
    )
    assert done.returncode == 0, done.stderr
    assert "nope" in done.stdout and "report.html" in done.stdout
    assert [p.name for p in (tmp_path / "runs").iterdir()] == ["nope"]


def test_a_queue_that_gives_no_number_is_refused(monkeypatch):
    monkeypatch.setattr(launch_module, "TASK_ID", types.SimpleNamespace(value=None))
    for variable in ("JOB_COMPLETION_INDEX", "SLURM_ARRAY_TASK_ID"):
        monkeypatch.setenv(variable, "abc")
        with pytest.raises(ValueError, match=f"{variable}=abc must be the number of a point"):
            launch_module._task_id()
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "7")
    assert launch_module._task_id() == 7


def test_a_number_that_kubernetes_gives_to_a_process_is_not_that_of_a_point(monkeypatch):
    """Otherwise each process of the job would run another point."""
    monkeypatch.setattr(launch_module, "TASK_ID", types.SimpleNamespace(value=None))
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "1")
    assert launch_module._task_id() == 1
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(ValueError, match=r"JOB_COMPLETION_INDEX=1 numbers .*--task_id"):
        launch_module._task_id()
    monkeypatch.setattr(launch_module, "TASK_ID", types.SimpleNamespace(value=-1))
    assert launch_module._task_id() is None


def test_a_cluster_that_cannot_be_joined_is_one_sentence(monkeypatch):
    def failing():
        raise RuntimeError("Number of processes must be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", failing)
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "host:1")
    with pytest.raises(ValueError, match=r"JAX_COORDINATOR_ADDRESS in the environment says.*unset"):
        preemption.listen()


def test_a_script_under_sbatch_without_srun_is_a_lone_process_that_nobody_can_join():
    """The coordinator listens on the loopback interface alone."""
    if not Path("/proc/net/tcp").exists():
        pytest.skip("only Linux lists the sockets that a process listens on as files")
    program = """
import os
from experiments.preemption import listen
listen()
mine = [os.readlink(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd") if
        os.path.islink(f"/proc/self/fd/{number}")]
for table in ("tcp", "tcp6"):
    for line in open(f"/proc/net/{table}").readlines()[1:]:
        _, address, _, state, *_, inode = line.split()[:10]
        if state == "0A" and f"socket:[{inode}]" in mine:
            print(address.split(":")[0])
"""
    done = run_python("-c", program, SLURM_JOB_ID="1")
    assert done.returncode == 0, done.stderr
    # 127.0.0.1, also as an address of IPv6; bytes come in the order of the machine.
    loopback = {"0100007F", "0000000000000000FFFF00000100007F"}
    listening = set(done.stdout.split())
    assert listening and listening <= loopback


@pytest.mark.parametrize("torn", [b"", b'{"config": {', b"\xff\xfe\x00", b"[]", b"{}", b"null"])
def test_a_damaged_evaluation_is_made_again(finished, corpus, torn):
    workdir, _, _ = finished
    path = workdir / "runs/alibi/seed0/evaluation.json"
    whole = path.read_bytes()
    path.write_bytes(torn)
    one, _ = comparison(config(corpus), workdir)
    assert len(one.results()[0]) == 1, "the report is made of the others"
    assert one.run() == []
    records = [json.loads(each)["records"] for each in (whole, path.read_bytes())]
    assert records[0] == records[1]


def test_an_evaluation_of_more_extensions_is_not_made_again(finished, corpus, monkeypatch):
    """Nor is what it has of the others lost, or reported."""
    workdir, _, _ = finished
    path = workdir / "runs/rope/seed0/evaluation.json"
    before = path.read_bytes()
    one, _ = comparison(config(corpus, schemes="rope,alibi"), workdir)
    monkeypatch.setattr(one, "evaluate", lambda *_: pytest.fail("evaluated again"))
    assert one.run() == [] and path.read_bytes() == before
    evaluations, training, _ = one.results()
    for key in ("records", "curves"):
        assert {each["scheme"] for found in evaluations for each in found[key]} == {"rope", "alibi"}
    assert {each["scheme"] for each in training} == {"rope", "alibi"}


def test_a_run_that_has_lost_what_it_is_of_is_refused(finished, corpus, tmp_path):
    shutil.copytree(finished[0] / "runs", tmp_path / "runs")
    folder = tmp_path / "runs/rope/seed0"
    (folder / "run.json").unlink()
    (tmp_path / "runs/alibi/seed0/run.json").write_text("{")
    one, _ = comparison(config(corpus), tmp_path)
    reasons = {f["scheme"]: f["reason"] for f in one.run()}
    assert "has checkpoints, but no run.json" in reasons["rope"]
    assert re.search(r"alibi/seed0/run.json is damaged", reasons["alibi"])
    (folder / "run.json").write_bytes((finished[0] / "runs/rope/seed0/run.json").read_bytes())
    (folder / "evaluation.json").unlink()
    (folder / "metrics.jsonl").unlink()
    reasons = {f["scheme"]: f["reason"] for f in comparison(config(corpus), tmp_path)[0].run()}
    assert "metrics.jsonl has lost the line of step 6" in reasons["rope"]


@pytest.mark.parametrize("torn", ["{}", "[]", "null", '{"config": 3}'])
def test_what_is_no_record_of_a_run_is_damaged(finished, corpus, tmp_path, torn):
    """Only its own point fails, with a sentence, in the report and in the state too."""
    shutil.copytree(finished[0] / "runs", tmp_path / "runs")
    (tmp_path / "runs/alibi/seed0/run.json").write_text(torn)
    one, output = comparison(config(corpus), tmp_path)
    told = "alibi/seed0/run.json is damaged: it must be an object with config, versions"
    assert len(one.results()[0]) == 1
    print_status(one, one.console)
    assert told in " ".join(output.getvalue().split())
    (failure,) = one.run()
    assert told in failure["reason"] and failure["scheme"] == "alibi"


@pytest.mark.parametrize("torn", ["", '{"reason": ', "{}", "[]", '{"reason": null}'])
def test_a_failure_that_cannot_be_read_says_so(finished, corpus, tmp_path, torn):
    shutil.copytree(finished[0] / "runs", tmp_path / "runs")
    (tmp_path / "runs/alibi/seed0/evaluation.json").unlink()
    (tmp_path / "runs/alibi/seed0/failure.json").write_text(torn)
    one, output = comparison(config(corpus), tmp_path)
    evaluations, _, failures = one.results()
    assert len(evaluations) == 1 and failures[0]["scheme"] == "alibi"
    assert "alibi/seed0/failure.json is damaged" in failures[0]["reason"]
    print_status(one, one.console)
    assert "1 done, 1 failed" in output.getvalue() and "failure.json is damaged" in " ".join(
        output.getvalue().split()
    )


def test_a_line_that_is_no_record_of_a_step_is_passed_over(corpus, tmp_path):
    one, output = comparison(config(corpus, schemes="nope"), tmp_path)
    folder = one.folder(one.points[0])
    folder.mkdir(parents=True)
    line = json.dumps({"step": 2, "seconds": 30.0})
    (folder / "metrics.jsonl").write_text(f'{line}\n3\n{{"step": 4}}\n')
    print_status(one, one.console)
    assert "stopped" in output.getvalue() and "2/6" in output.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments,message",
    [
        (["--config.schemes=nopee"], "error: unknown encoding 'nopee', did you mean 'nope'"),
        (["--task_id=99"], "error: task_id=99 must be in 0..10"),
        (
            ["--config=configs/extrapolation.py:smal"],
            "unknown preset 'smal'; valid: tiny, demo, small",
        ),
        (["--config=configs/nothing.py:small"], "error: --config=configs/nothing.py is no file"),
        (["--config.experiment=image"], "experiment='image' must be one of extrapolation, images"),
        (
            ["--config.train.stepz=3"],
            "error: --config.train.stepz=3: the config has no field 'stepz'. "
            'Did you mean "steps"?\n',
        ),
        (["--config.train.steps=many"], "--config.train.steps"),
        (["--config.mesh.tensor=2"], "--config.mesh.tensor=2: the config has no field 'tensor'"),
        (["steps=3"], "error: 'steps=3' is no flag; every argument is --name=value"),
        (["--topology=v5e:2x2"], "error: --topology is for --dry_run: nothing can run on chips"),
        (["--workdir="], "error: --workdir is empty; give the folder of the results"),
        (["--task_id=-5"], "error: --task_id=-5 must be the number of a point, or -1 for all"),
    ],
)
def test_command_line_says_what_is_wrong(tmp_path, arguments, message):
    preset = "--config=configs/extrapolation.py:tiny"
    if not any(a.startswith("--config=") for a in arguments):
        arguments = [preset, *arguments]
    done = launch(f"--workdir={tmp_path}", *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"mfu": "0.3"}, "--mfu is for --dry_run"),
        ({"topology": "v5e:2x2"}, "--topology is for --dry_run"),
        ({"resource": ["nodes=2"]}, "--submit, --again and --resource are for --backend"),
        ({"backend": "slurm", "again": "true"}, "--again is for --submit"),
        ({"backend": "slurm", "status": "true"}, "--backend and --status ask for different things"),
        ({"dry_run": "true", "report": "true"}, "--dry_run and --report ask for different things"),
        ({"dry_run": "true", "task_id": "1"}, "--dry_run is about all points, and --task_id about"),
        ({"backend": "gke", "task_id": "1"}, "--task_id is for a job of its own, and --backend"),
        ({"backend": "gke", "coordinator": "h:1"}, "--coordinator is for a job of its own"),
    ],
)
def test_a_flag_that_another_would_make_the_program_ignore_is_refused(given, message):
    with flagsaver.as_parsed(**given), pytest.raises(ValueError, match=message):
        flags.FLAGS.mark_as_parsed()
        launch_module._check_together()


def test_a_command_without_config_or_workdir_is_shown_one_with_both(tmp_path):
    given = {"config": "configs/extrapolation.py:tiny", "workdir": tmp_path}
    for missing, other in (("config", "workdir"), ("workdir", "config")):
        done = launch(f"--{other}={given[other]}")
        assert done.returncode == 2
        assert f"error: --{missing} is missing; a command has both, such as" in done.stderr


def test_a_function_that_returns_no_config_is_refused(tmp_path):
    (tmp_path / "three.py").write_text("def get_config():\n    return 3\n")
    done = launch(f"--config={tmp_path / 'three.py'}", f"--workdir={tmp_path}")
    assert done.returncode == 2
    assert "error: --config gave 3, which is no config of an experiment\n" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("changes", "module"),
    [({"train__tensorboard": True}, "tensorboardX"), ({"train__wandb": "mine"}, "wandb")],
)
def test_what_is_not_installed_is_said_before_training(
    corpus, tmp_path, monkeypatch, changes, module
):
    monkeypatch.setitem(sys.modules, module, None)
    one, _ = comparison(config(corpus, **changes), tmp_path)
    with pytest.raises(ValueError, match=f"{module}: pip install"):
        one.run()
    assert not (tmp_path / "runs").exists()
