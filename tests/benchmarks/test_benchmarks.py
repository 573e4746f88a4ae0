"""Tests that benchmarks answer wrong arguments in words, before they compile anything."""

import importlib
import sys

import common
import pytest

from benchmarks import tpu_report

ROUNDS = "--rounds=0", "argument --rounds"
UNKNOWN = "--schemes=rope,ropee", "did you mean 'rope'"


@pytest.mark.parametrize(
    ("name", "flag", "message"),
    [
        *((name, *ROUNDS) for name in ("attention", "cost", "decode", "longrope", "train")),
        *((name, *UNKNOWN) for name in ("attention", "compare", "cost", "long_document", "scale")),
        ("compare", "--schemes=yarn", "yarn is evaluated on a trained rope"),
        ("depth", "--length=-1", "argument --length"),
        ("generate", "--cases=1024", "'1024' must be tokens of prompt and answer"),
        ("growth", "--axes=depth", "--axes=depth must be some of"),
        ("memory", "--vocab=0", "argument --vocab"),
        ("pretrained", "--here=nobody", "argument --here"),
        ("revisions", "--base=nowhere", "--base=nowhere must be the folder of a clone"),
        ("tpu_check", "--chips=v9", "--chips must be some of"),
        ("tpu_report", "nowhere.csv", "No such file or directory: 'nowhere.csv'"),
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


def test_the_page_of_programs_has_what_the_table_has():
    folder = common.ROOT / "docs/data"
    text = tpu_report.page(tpu_report.read(folder / "tpu_check.csv.gz"))
    assert text == (folder / "tpu_check.md").read_text(), f"run {tpu_report.__doc__}"
