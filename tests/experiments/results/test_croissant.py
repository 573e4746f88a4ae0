"""Tests that the metadata of docs/data are those of its files, and that others can read them."""

import json
import os
import subprocess
import sys

import common
import pytest

from experiments.results.reports import croissant

DATA = common.ROOT / "docs/data"
# What mlcroissant needs beyond what the tests need. Its pandas-stubs would change what mypy sees.
PACKAGES = "mlcroissant rdflib pyparsing networkx jsonpath-rw ply decorator six requests tqdm"
READ = """
import sys
import mlcroissant
data = mlcroissant.Dataset("croissant.json")
for name, size in (("values", 4), ("decode", 3), ("claims", 15)):
    record = next(iter(data.records(name)))
    assert len(record) == size, record
"""


def test_the_metadata_are_those_of_the_files():
    words = f"run python -m {croissant.__name__}"
    assert json.loads((DATA / "croissant.json").read_text()) == croissant.described(DATA), words
    assert (DATA / "index.md").read_text() == croissant.datasheet(DATA), words


@pytest.mark.slow
def test_mlcroissant_reads_the_tables(tmp_path):
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(tmp_path)]
    subprocess.run([*pip, *PACKAGES.split()], check=True)
    env = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", READ], cwd=DATA, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0 and "not standard" not in done.stderr, done.stderr
