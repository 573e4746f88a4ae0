"""Tests that benchmarks answer wrong arguments in words, before they compile anything."""

import importlib
import json
import sys

import common
import pandas as pd
import pytest

from benchmarks import tpu_report
from benchmarks.accelerator import __main__ as accelerator
from benchmarks.accelerator import agreement
from benchmarks.precision_losses import compared
from posenc_jax import REGISTRY

ROUNDS = "--rounds=0", "argument --rounds"
UNKNOWN = "--schemes=rope,ropee", "did you mean 'rope'"


@pytest.mark.parametrize(
    ("name", "flag", "message"),
    [
        *((name, *ROUNDS) for name in ("attention", "cost", "decode", "train")),
        *((name, *UNKNOWN) for name in ("attention", "compare", "cost", "long_document", "scale")),
        ("compare", "--schemes=yarn", "yarn is evaluated on a trained rope"),
        ("growth", "--axes=depth", "--axes"),
        ("memory", "--vocab=0", "argument --vocab"),
        ("tpu_check", "--chips=v9", "--chips"),
    ],
)
def test_wrong_arguments_are_one_sentence(name, flag, message, monkeypatch, capsys):
    if name == "train":
        pytest.importorskip("torch")
    module = importlib.import_module(f"benchmarks.{name}")
    monkeypatch.setattr(sys, "argv", [name, *flag.split()])
    try:
        status = module.main()
    except SystemExit as stop:  # of argparse
        status = stop.code
    assert status == 2 and message in capsys.readouterr().err


def test_losses_under_two_precisions_are_compared_by_seed():
    keys = ["scheme", "multiple", "seed"]
    rows = [("rope", 1, seed, loss) for seed, loss in enumerate((2.0, 2.2))]
    first = pd.DataFrame(rows, columns=[*keys, "loss"]).set_index(keys)["loss"]
    second = first + [0.1, 0.3]
    row = compared(first, pd.concat([second, second.rename({"rope": "alibi"})])).loc["rope", 1]
    assert row["difference"] == pytest.approx(0.2)
    assert row["deviation"] == pytest.approx(0.02**0.5)


def test_the_page_of_programs_has_what_the_table_has():
    folder = common.ROOT / "docs/data"
    text = tpu_report.page(tpu_report.read(folder / "tpu_check.csv.gz"))
    assert text == (folder / "tpu_check.md").read_text(), f"run {tpu_report.__doc__}"


# The benchmark for accelerators


@pytest.mark.slow
def test_in_miniature(tmp_path, capsys):
    assert accelerator.main(["--tiny", "--minutes=5", f"--out={tmp_path}"]) == 0
    lines = (tmp_path / "results.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    checks = {r["implementation"]: r["is_ok"] for r in records if r["kind"] == "check"}
    assert checks == {"dense": True, "blockwise": True, "ring": True, "fused": None, "pallas": True}
    timed = {(r["who"], r["pass"]): r for r in records if r["kind"] == "attention"}
    for who in ("dense", "blockwise", "pallas", "jax.nn, xla"):
        for which in ("forward", "forward and backward"):
            assert timed[who, which]["ms"] > 0
    assert timed["jax.nn, xla", "forward"]["distance"] < 2e-2, "the same scores, in bfloat16"
    (step,) = (r for r in records if r["kind"] == "step")
    assert step["tokens_per_second"] > 0
    report = (tmp_path / "report.md").read_text()
    assert report in capsys.readouterr().out
    for part in ("forward and backward", "Training step", "distance from exact", "`alibi`"):
        assert part in report


def test_everything_is_planned_once():
    names = [name for name, _ in accelerator.plan(accelerator.FULL)]
    assert len(names) == len(set(names))
    checked = {name.removeprefix("check ") for name in names if name.startswith("check ")}
    assert checked == {name for name in REGISTRY if name not in accelerator.PATTERNS}


def test_no_item_begins_after_the_time(tmp_path, capsys):
    assert accelerator.main(["--tiny", "--minutes=-1", f"--out={tmp_path}"]) == 0
    assert "time is up: 4 of 4 items not begun" in capsys.readouterr().out


@pytest.mark.parametrize("wrong", ["nan", "off", "crash", "refused"])
def test_what_is_wrong_is_said(tmp_path, monkeypatch, wrong):
    """A kernel that is wrong, or that a card cannot run, must not look as if it were right."""
    right = agreement._values_and_gradients

    def broken(implementation, *arguments):
        (value, out), gradients = right("dense", *arguments)
        if wrong == "refused" and implementation == "blockwise":
            raise ValueError("blockwise runs every scheme, and may refuse none")
        if implementation != "pallas" or wrong == "refused":
            return (value, out), gradients
        if wrong == "crash":
            raise RuntimeError("out of shared memory")
        return (value, out * (float("nan") if wrong == "nan" else 1.01)), gradients

    monkeypatch.setattr(agreement, "_values_and_gradients", broken)
    check = [("check alibi", lambda: agreement.check("alibi", tokens=16))]
    monkeypatch.setattr(accelerator, "plan", lambda scale: check)
    assert accelerator.main(["--tiny", "--minutes=5", f"--out={tmp_path}"]) == 1
    report = (tmp_path / "report.md").read_text()
    assert "**" in report
