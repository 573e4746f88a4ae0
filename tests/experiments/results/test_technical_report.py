"""Tests that the technical report has no typed number, and that it comes from the kept results."""

import re
from pathlib import Path

import common
import pytest

from experiments.results.reports import technical_report
from experiments.results.reports.typst_words import inline

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
    assert all(f"`{name}`"[1:-1] in text for name in ("transformer_xl", "alibi_half_length"))
