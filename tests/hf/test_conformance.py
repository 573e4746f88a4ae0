"""Tests the vectors for other projects, by the reader that their page has."""

import json
import re
import zipfile

import chex
import common
import pytest

from parity.conformance import CASES, PAGE, conformance

KEPT = common.ROOT / "docs/data/conformance.zip"


@pytest.mark.slow
def test_the_kept_vectors_are_those_of_the_library():
    with zipfile.ZipFile(KEPT) as archive:
        assert archive.read("README.md").decode() == PAGE.read_text()
        kept = json.loads(archive.read("conformance.json"))["cases"]
    made = json.loads(json.dumps(conformance()))["cases"]
    assert made.keys() == kept.keys()
    for name, case in made.items():
        for key in ("config", "call", "layout", "axes"):
            assert case.pop(key) == kept[name].pop(key)
        chex.assert_trees_all_close(case, kept[name], atol=2e-6)


def test_the_reader_of_the_page_finds_the_vectors_right(tmp_path, monkeypatch, capsys):
    """It computes in Python's float64 what the library computes in float32."""
    zipfile.ZipFile(KEPT).extractall(tmp_path)
    page = (tmp_path / "README.md").read_text()
    reader = re.search(r"```python\n(.*?)```", page, re.DOTALL)[1]
    monkeypatch.chdir(tmp_path)
    exec(reader, {})
    printed = dict(line.split() for line in capsys.readouterr().out.splitlines())
    assert printed.keys() == CASES.keys()
    assert max(map(float, printed.values())) < 2e-6
