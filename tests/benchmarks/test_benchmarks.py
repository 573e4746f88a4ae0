"""Tests that benchmarks answer wrong arguments in words, before they compile anything."""

import csv
import importlib
import sys

import common
import pytest

from benchmarks import tpu_report

ROUNDS = "--rounds=0", "argument --rounds: '0' must be a whole number of at least 1"
UNKNOWN = "--schemes=rope,ropee", "unknown encoding name='ropee', did you mean 'rope'"


@pytest.mark.parametrize(
    ("name", "flag", "message"),
    [
        ("attention", *ROUNDS),
        ("attention", *UNKNOWN),
        ("attention", "--lengths=512,x", "argument --lengths: 'x' must be a whole number"),
        ("compare", *UNKNOWN),
        ("compare", "--schemes=yarn", "yarn is evaluated on a trained rope; add rope to schemes"),
        ("compare", "--seeds=none", "argument --seeds: 'none' must be a whole number"),
        ("cost", *ROUNDS),
        ("cost", *UNKNOWN),
        ("decode", *ROUNDS),
        ("decode", *UNKNOWN),
        ("depth", "--length=-1", "argument --length: '-1' must be a whole number of at least 1"),
        ("generate", *ROUNDS),
        ("generate", "--cases=1024", "'1024' must be tokens of prompt and answer, at least 2"),
        ("generate", "--batches=1,0", "argument --batches: '0' must be a whole number"),
        ("growth", "--axes=depth", "--axes=depth must be some of length,batch,layers,heads"),
        ("long_document", "--chunk=0", "argument --chunk: '0' must be a whole number"),
        ("long_document", *UNKNOWN),
        ("longrope", *ROUNDS),
        ("longrope", "--pass-tokens=512,", "argument --pass-tokens: '' must be a whole number"),
        ("memory", "--vocab=0", "argument --vocab: '0' must be a whole number"),
        ("pretrained", "--lengths=1k", "argument --lengths: '1k' must be a whole number"),
        ("pretrained", "--here=nobody", "argument --here: invalid choice: 'nobody'"),
        ("revisions", "--rounds=3", "--base=None must be the folder of a clone"),
        ("revisions", "--base=nowhere", "--base=nowhere must be the folder of a clone"),
        ("revisions", "--base=. --shapes=8", "--shapes=8 must be BATCHxLENGTH, such as 8x256"),
        ("revisions", "--base=. --rounds=0", "--rounds=0 must be at least 1"),
        ("revisions", "--base=. --schemes=ropee", "must be names of the registry, not {'ropee'}"),
        ("scale", "--steps=11", "--steps=11 must be at least 12"),
        ("scale", "--parts=all", "--parts=all must be some of trainer, sweep, processes"),
        ("scale", "--preset=huge", "argument --preset: invalid choice: 'huge'"),
        ("scale", *UNKNOWN),
        (
            "tpu_check",
            "--schemes=ropee",
            "--schemes must be some of all, kinds or names of the reg",
        ),
        ("tpu_check", "--chips=v9", "--chips must be some of ['v5e', 'v5p'], not v9"),
        ("tpu_check", "--only=all", "--only must be some of ['attention', 'lengths', 'steps']"),
        ("tpu_check", "--known=nowhere.csv", "No such file or directory: 'nowhere.csv'"),
        ("tpu_check", "--known=setup.py", "--known=setup.py is no tpu_check.csv, which has part"),
        ("tpu_report", "nowhere.csv", "No such file or directory: 'nowhere.csv'"),
        ("train", *ROUNDS),
        ("train", "--encoding=rope2", "argument --encoding: invalid choice: 'rope2'"),
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
    with (folder / "tpu_check.csv").open() as file:
        text = tpu_report.page(list(csv.DictReader(file)))
    assert text == (folder / "tpu_check.md").read_text(), f"run {tpu_report.__doc__}"
