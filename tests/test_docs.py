"""Runs the Python of every page and example, and follows all links.

``make site`` runs the tutorials, whose outputs it shows, and ends with an error where one fails.
"""

import re
import runpy
from pathlib import Path

import common
import jax
import numpy as np
import pages
import pytest

import posenc_jax

ROOT = common.ROOT
# Pages of schemes are made anew by ``make site``, and are not in the repository.
PAGES = ["README.md"] + [
    path.relative_to(ROOT).as_posix()
    for path in sorted(ROOT.glob("docs/**/*.md"))
    if path.parent.name != "schemes" or path.name == "index.md"
]
# tests/hf/test_conformance.py runs conformance.md, which reads a file of a kept archive.
# tests/adapters/test_adapters.py runs decoding.md, and uses its functions.
ELSEWHERE = "conformance.md", "how-to/decoding.md"
WITH_CODE = [name for name in PAGES if pages.blocks(name) and not name.endswith(ELSEWHERE)]


def anchors(page: Path) -> set[str]:
    """Returns the names that GitHub gives to the headings of a page."""
    heads = re.findall(r"^#+ (.*)$", page.read_text(), re.M)
    return {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name):
    for link in re.findall(r"\]\(([^)\s]+)\)", (ROOT / name).read_text()):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        page = (ROOT / name).parent / path if path else ROOT / name
        assert page.exists(), link
        assert not anchor or anchor in anchors(page), link


def test_the_page_of_schemes_has_all_of_them():
    text = (ROOT / "docs/schemes/index.md").read_text()
    assert [name for name in posenc_jax.REGISTRY if f"`{name}`" not in text] == []


@pytest.mark.parametrize("name", WITH_CODE)
def test_the_code_of_a_page_runs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pages.run(name)


EXAMPLES = sorted(ROOT.glob("examples/*.py"))
# Those of other libraries take as long, and break when these change.
OTHERS = {"haiku_decoder", "equinox_decoder"}


@pytest.mark.parametrize(
    "path",
    [pytest.param(p, marks=[pytest.mark.slow] * (p.stem in OTHERS), id=p.stem) for p in EXAMPLES],
)
def test_an_example_runs(path, capsys):
    with jax.numpy_rank_promotion("allow"):  # as users have it
        result = runpy.run_path(str(path))["main"]()
    assert capsys.readouterr().out.strip()
    for array in jax.tree.leaves(result):
        assert np.isfinite(array).all()
