"""Tests the vectors for other projects, by the reader that their page has."""

import json
import re

import common
import pytest

from parity.conformance import CASES, conformance

PAGE = common.ROOT / "docs" / "how-to" / "conformance.md"


@pytest.mark.slow
def test_the_reader_of_the_page_finds_the_vectors_right(tmp_path, monkeypatch, capsys):
    """It computes in Python's float64 what the library computes in float32."""
    reader = re.search(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)[1]
    results = conformance()
    (tmp_path / "conformance.json").write_text(json.dumps(results))
    monkeypatch.chdir(tmp_path)
    exec(reader, {})
    printed = dict(line.split() for line in capsys.readouterr().out.splitlines())
    assert printed.keys() == CASES.keys()
    assert max(map(float, printed.values())) < 2e-6

    # A reader of another layout is told apart.
    results["cases"] = {"interleaved": results["cases"]["interleaved"] | {"layout": "half"}}
    (tmp_path / "conformance.json").write_text(json.dumps(results))
    exec(reader, {})
    assert float(capsys.readouterr().out.split()[1]) > 0.1
