"""Tests that benchmarks answer wrong arguments in words, before they compile anything."""

import importlib
import sys

import common
import pandas as pd
import pytest

from benchmarks import tpu_report
from benchmarks.precision_losses import compared

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
    if name in ("generate", "pretrained", "train"):
        pytest.importorskip("torch")
        pytest.importorskip("transformers")
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
