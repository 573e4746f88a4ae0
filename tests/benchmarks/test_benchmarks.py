"""Starts each benchmark at a tiny size, and tests that no wrong kernel looks right."""

import importlib
import json
import subprocess
import sys

import common
import pytest

from benchmarks import accelerator, agreement
from posenc_jax import REGISTRY

SMALL = "--batch=1 --length=16 --dim=16 --layers=2"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "arguments", "row"),
    [
        (
            "attention",
            "--schemes=nope,alibi --lengths=16 --heads=1 --rounds=1",
            "| `alibi` | dense",
        ),
        ("memory", f"{SMALL} --vocab=64", "| blockwise | yes | in pieces |"),
        ("cost", f"{SMALL} --schemes=rope --rounds=1", "| rope |"),
        ("cost", f"{SMALL} --of=token --schemes=irope --layers=6 --rounds=1", "| irope |"),
        ("train", f"{SMALL} --encoding=t5 --rounds=1", "M |"),
    ],
)
def test_a_program_prints_its_table(name, arguments, row, monkeypatch, capsys):
    if name == "train":
        pytest.importorskip("torch", reason="it is compared with, and not installed for tests")
    module = importlib.import_module(f"benchmarks.{name}")
    monkeypatch.setattr(sys, "argv", [name, *arguments.split()])
    assert module.main() == 0
    assert row in capsys.readouterr().out


@pytest.mark.slow
def test_a_revision_is_timed_against_itself():
    little = ["--schemes=alibi", "--shapes=1x16", "--rounds=1", "--compilations=1"]
    little += ["--processes=2"]
    command = [sys.executable, "-m", "benchmarks.revisions", f"--base={common.ROOT}", *little]
    done = subprocess.run(command, cwd=common.ROOT, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()[2:]
    measures = [line.split(" | ")[2] for line in lines]
    assert measures == ["compiling", "step", "prompt", "token"]


@pytest.mark.slow
def test_an_accelerator_in_miniature(tmp_path, capsys):
    assert accelerator.main(["--tiny", "--minutes=5", f"--out={tmp_path}"]) == 0
    records = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    checks = {r["who"]: r["is_ok"] for r in records if r["kind"] == "check"}
    over_context = dict.fromkeys(agreement.OVER_CONTEXT, True)
    assert checks == {"dense": True, "blockwise": True, **over_context, "fused": None}
    timed = {(r["who"], r["pass"]): r for r in records if r["kind"] == "attention"}
    for which in ("forward", "forward and backward"):
        assert timed["dense", which]["ms"] > 0 and timed["jax.nn, xla", which]["ms"] > 0
    assert timed["jax.nn, xla", "forward"]["distance"] < 2e-2, "the same scores, in bfloat16"
    assert (tmp_path / "report.md").read_text() in capsys.readouterr().out


def test_everything_is_planned_once():
    names = [name for name, _ in accelerator.plan(accelerator.FULL)]
    assert len(names) == len(set(names))
    checked = {name.removeprefix("check ") for name in names if name.startswith("check ")}
    assert checked == {name for name in REGISTRY if name not in accelerator.PATTERNS}


@pytest.mark.parametrize("wrong", ["nan", "off", "crash"])
def test_what_is_wrong_is_said(tmp_path, monkeypatch, wrong):
    """A kernel that is wrong, or that a card cannot run, must not look as if it were right."""
    right = agreement._values_and_gradients

    def broken(implementation, *arguments):
        (value, out), gradients = right("dense", *arguments)
        if implementation != "blockwise":
            return (value, out), gradients
        if wrong == "crash":
            raise RuntimeError("out of shared memory")
        return (value, out * (float("nan") if wrong == "nan" else 1.01)), gradients

    monkeypatch.setattr(agreement, "_values_and_gradients", broken)
    check = [("check alibi", lambda: agreement.check("alibi", tokens=16))]
    monkeypatch.setattr(accelerator, "plan", lambda scale: check)
    assert accelerator.main(["--tiny", "--minutes=5", f"--out={tmp_path}"]) == 1
    assert "**" in (tmp_path / "report.md").read_text()
