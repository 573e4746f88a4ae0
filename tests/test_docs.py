"""Runs the Python of every page as it is printed, and follows all links.

A page runs from top to bottom in one namespace. Only blocks that are marked ``python no-run`` are
left out: they download something, or are a line of another file.
"""

import re
from pathlib import Path

import common
import numpy as np
import pytest

import posenc_jax

ROOT = common.ROOT
# Pages of schemes are made anew by ``make site``, and are not in the repository.
PAGES = ["README.md"] + [
    path.relative_to(ROOT).as_posix()
    for path in sorted(ROOT.glob("docs/**/*.md"))
    if path.parent.name != "schemes" or path.name == "index.md"
]
# The file that this page reads takes long to make: tests/hf/test_conformance.py runs the page.
ELSEWHERE = {"docs/how-to/conformance.md"}
INCLUDE = re.compile(
    r'```{include} (\S+)\n(?::.*\n)*?:start-after: "(.*)"\n:end-before: "(.*)"\n```'
)


def printed(name: str) -> str:
    """Returns a page with the parts of other pages that it includes."""

    def included(match):
        file, start, end = match.groups()
        text = ((ROOT / name).parent / file).read_text()
        return text.split(start)[1].split(end)[0]

    return INCLUDE.sub(included, (ROOT / name).read_text())


def blocks(name: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", printed(name), re.DOTALL | re.M)


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


@pytest.mark.parametrize("name", [page for page in PAGES if blocks(page)])
def test_the_code_of_a_page_runs(name, tmp_path, monkeypatch):
    if name in ELSEWHERE:
        pytest.skip("run by tests/hf/test_conformance.py")
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for number, block in enumerate(blocks(name), start=1):
        exec(compile(block, f"{name}, block {number}", "exec"), names)
        for variable, value in names.items():
            if variable.startswith(("out", "logits")):
                assert np.isfinite(value).all(), (number, variable)
