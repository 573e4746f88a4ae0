"""Tests that README.md says what the kept results say."""

import json

import common
import pytest

from experiments.results import atlas_data
from experiments.results.reports import findings

README = (common.ROOT / "README.md").read_text()


@pytest.fixture(scope="module")
def sources():
    answers = atlas_data.read(common.ROOT / "docs/atlas")
    return answers, json.loads((common.ROOT / "docs/claims/claims.json").read_text())


def test_the_findings_are_those_of_the_kept_results(sources):
    assert findings.rewritten(README, *sources) == README, "run make results"


def test_other_results_change_the_findings(sources):
    answers, ledger = sources
    far = (answers["topic"] == "text") & (answers["multiple"] == 16)
    none_better = answers.assign(vs_rope_windowed=answers["vs_rope_windowed"].mask(far, "worse"))
    text = " ".join(findings.rewritten(README, none_better, ledger).split())
    assert "0 schemes are better" in text and f"{far.sum()} are worse" in text


def test_a_page_without_a_place_for_findings_is_refused(sources):
    with pytest.raises(ValueError, match="0 places"):
        findings.rewritten("# A page\n", *sources)
