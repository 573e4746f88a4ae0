"""The pages of schemes are made of facts: docstrings, the registry, the tests and the results."""

import common
import pytest

from docs.site import docstrings, pages, papers, snippets
from posenc_jax import REGISTRY

NOTHING_DRAWN = pages.Drawn([], [], ())


@pytest.mark.parametrize("name", REGISTRY)
def test_a_page_has_its_parts(name):
    page = pages.page(name, NOTHING_DRAWN, [])
    assert page.startswith(f"# {name}\n") and "$$" in page and ">>> " in page
    source = page.partition("## Source\n")[2].partition("<details>")[0]
    assert source.strip()
    for number in papers.numbers(source):
        assert number in papers.papers()


def test_every_scheme_is_listed_in_one_family():
    pages_of = {family: pages.list_of(family) for family in pages.FAMILIES}
    listed = [name for name in REGISTRY for page in pages_of.values() if f"({name}.md)" in page]
    assert listed == [*REGISTRY]
    tree = (common.ROOT / "docs/schemes/index.md").read_text().partition("```{toctree}")[2]
    assert all(f"\n{pages.file_of(family)}\n" in tree for family in pages.FAMILIES)


@pytest.mark.parametrize("name", REGISTRY)
def test_docstrings_explain_every_keyword(name):
    rows = pages.arguments(name, docstrings.of_scheme(name))
    assert [row["name"] for row in rows if not row["says"]] == []


@pytest.mark.parametrize("name", ["fox", "irope"])
def test_the_code_of_a_page_runs(name):
    snippets.check(name)


def test_every_golden_array_is_listed_and_used():
    files = {path.stem for path in common.GOLDEN.glob("*.npz")}
    assert files == set(common.INDEX)
    assert {name for about in common.INDEX.values() for name in about["schemes"]} <= {*REGISTRY}
    tests = common.GOLDEN.parent.rglob("test_*.py")
    source = "".join(path.read_text() for path in tests)
    assert not [name for name in files if f'"{name}"' not in source]
