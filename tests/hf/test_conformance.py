"""Tests the vectors for other projects, by the reader that their page has."""

import json
import re

import common
import numpy as np
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


@pytest.mark.slow
def test_vectors_say_what_the_configs_do():
    cases = conformance()["cases"]
    assert cases["first_quarter"]["rotary_dim"] == 32 and cases["first_quarter"]["head_dim"] == 128
    np.testing.assert_allclose(cases["local_layers"]["inv_freq"][1], 10000 ** (-1 / 128), 1e-15)
    ratio = np.divide(cases["global_layers"]["inv_freq"], cases["local_layers"]["inv_freq"])
    assert ratio[0] == 0.125  # linear scaling by 8 of the global layers alone
    assert cases["several_axes"]["axes"][:17] == (0,) * 16 + (1,)
    # 1 + 0.1 ln(1 + floor(m / 16384))
    scales = 1 + 0.1 * np.log1p(np.floor(np.array(cases["scaled_queries"]["positions"]) / 16384))
    # A quotient of two float32 products, each of which is rounded.
    np.testing.assert_allclose(cases["scaled_queries"]["query_scale"], scales, rtol=2e-6)
    assert set(cases["yarn"]["query_scale"]) == {1.0}
    assert cases["yarn"]["attention_factor"] == 1 + 0.1 * np.log(4)
