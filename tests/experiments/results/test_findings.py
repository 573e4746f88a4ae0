"""Tests that README.md and docs/results.md say what the kept results say."""

import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import common
import pytest

from experiments.results.reports import croissant, findings, technical_report
from experiments.results.reports.choosing_page import NEEDS
from experiments.results.reports.sources import read
from experiments.results.reports.typst_words import inline

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
    # A scheme that another equals is counted once.
    worse = len(sources.atlas.distinct_answers("text", 16))
    assert "0 schemes are better" in text and f"{worse} are worse" in text and worse < far.sum()


def test_schemes_that_gain_are_named_where_there_are_any(sources):
    answers = sources.atlas.answers
    of_fox = (answers["topic"] == "gain, manual") & (answers["scheme"] == "fox")
    ends = {
        "better": "1 gain is clear after",
        "worse": "no gain is clear after correction**. The largest",
    }
    for word, said in ends.items():
        verdicts = answers["vs_own_window"].mask(answers["topic"] == "gain, manual", "worse")
        other = with_answers(sources, answers.assign(vs_own_window=verdicts.mask(of_fox, word)))
        assert f"**On the manual, {said}" in findings.sentences("gains", other)[0]


# The metadata of docs/data


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


# The technical report


DOCS = common.ROOT / "docs"
TEMPLATE = Path(technical_report.__file__).parent / "templates/report.typ"


def test_the_template_has_words_and_no_numbers():
    prose = re.sub(
        r"\{\{.*?\}\}|\{%.*?%\}|^#(set|show|let|align|v).*$", "", TEMPLATE.read_text(), flags=re.M
    )
    assert len(prose.split()) > 500 and not re.search(r"\d", prose)


@pytest.mark.parametrize(
    ("markdown", "typst"),
    [
        ("`a_b`; c", '#raw("a_b");; c'),
        ("**5** (x) *y*", "#strong[5]; (x) #emph[y];"),
        ("a_b #1 $2 @c", r"a\_b \#1 \$2 \@c"),
        ("0.1 ± 0.2, 95 %", "0.1~±~0.2, 95~%"),
        ("of 1234.56789 and 9876.54321", '#cite(label("1234.56789"));'),
        ("[here](page.md), [there](https://x.y)", 'here, #link("https://x.y")[there];'),
    ],
)
def test_words_keep_their_meaning_in_typst(markdown, typst):
    assert typst in inline(markdown, {"1234.56789"})


@pytest.mark.slow
def test_the_report_is_built_from_what_is_kept():
    pytest.importorskip("typst")
    files = technical_report.files(DOCS)
    pdf = technical_report.compiled(files)
    assert pdf.startswith(b"%PDF") and 12 <= len(re.findall(rb"/Type\s*/Page\b", pdf)) <= 20
    # Another result is another sentence.
    text = files["report.typ"]
    assert all(name in text for name in ("transformer_xl", "alibi_half_length"))
    assert all(need.title in text for need in NEEDS)
