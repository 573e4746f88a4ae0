"""Tests that README.md and docs/results.md say what the kept results say."""

import dataclasses

import common
import pytest

from experiments.results.reports import findings
from experiments.results.reports.sources import read

PAGES = ("README.md", "docs/results.md")
README = (common.ROOT / "README.md").read_text()


@pytest.fixture(scope="module")
def sources():
    return read(common.ROOT / "docs")


@pytest.mark.parametrize("page", PAGES)
def test_the_findings_are_those_of_the_kept_results(page, sources):
    text = (common.ROOT / page).read_text()
    assert findings.rewritten(text, sources) == text, "run make results"


def test_every_finding_stands_on_a_page():
    text = "".join((common.ROOT / page).read_text() for page in PAGES)
    assert [name for name in findings.WRITERS if f"<!-- findings: {name} -->" not in text] == []


def with_answers(sources, answers):
    return dataclasses.replace(sources, atlas=dataclasses.replace(sources.atlas, answers=answers))


def test_other_results_change_the_findings(sources):
    answers = sources.atlas.answers
    far = (answers["topic"] == "text") & (answers["multiple"] == 16)
    none_better = answers.assign(vs_rope_windowed=answers["vs_rope_windowed"].mask(far, "worse"))
    other = with_answers(sources, none_better)
    text = " ".join(findings.rewritten(README, other).split())
    assert "0 schemes are better" in text and f"{far.sum()} are worse" in text


def test_schemes_that_gain_are_named_where_there_are_any(sources):
    answers = sources.atlas.answers
    of_fox = (answers["topic"] == "gain, manual") & (answers["scheme"] == "fox")
    for word, said in (("better", "1 scheme gains**, in bits"), ("worse", "no scheme gains**.")):
        verdicts = answers["vs_own_window"].mask(answers["topic"] == "gain, manual", "worse")
        other = with_answers(sources, answers.assign(vs_own_window=verdicts.mask(of_fox, word)))
        assert f"**On the manual, {said}" in findings.sentences("gains", other)[0]
