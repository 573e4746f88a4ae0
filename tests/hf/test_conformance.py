"""Tests the vectors for other projects, by the reader that their page has."""

import json
import re
import zipfile

import pytest

from parity.conformance import CASES, write


@pytest.mark.slow
def test_the_reader_of_the_page_finds_the_vectors_right(tmp_path, monkeypatch, capsys):
    """It computes in Python's float64 what the library computes in float32."""
    write(tmp_path / "conformance.zip")
    zipfile.ZipFile(tmp_path / "conformance.zip").extractall(tmp_path)
    page = (tmp_path / "README.md").read_text()
    reader = re.search(r"```python\n(.*?)```", page, re.DOTALL)[1]
    monkeypatch.chdir(tmp_path)
    exec(reader, {})
    printed = dict(line.split() for line in capsys.readouterr().out.splitlines())
    assert printed.keys() == CASES.keys()
    assert max(map(float, printed.values())) < 2e-6

    # A reader of another layout is told apart.
    results = json.loads((tmp_path / "conformance.json").read_text())
    results["cases"] = {"interleaved": results["cases"]["interleaved"] | {"layout": "half"}}
    (tmp_path / "conformance.json").write_text(json.dumps(results))
    exec(reader, {})
    assert float(capsys.readouterr().out.split()[1]) > 0.1
