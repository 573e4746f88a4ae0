"""The pages of schemes are made of facts: docstrings, the registry, the tests and the results."""

import common
import pytest

import posenc_jax
from docs.site import concepts, docstrings, models, pages, papers, snippets
from posenc_jax import REGISTRY
from posenc_jax.registry import PATTERNS

NOTHING_DRAWN = pages.Drawn([], [], ())


@pytest.mark.parametrize("name", REGISTRY)
def test_a_page_has_its_parts(name):
    page = pages.page(name, NOTHING_DRAWN, [])
    assert page.startswith(f"# {name}\n") and "$$" in page and ">>> " in page
    source = page.partition("## Source\n")[2].partition("<details>")[0]
    assert source.strip()
    for number in papers.numbers(source):
        assert number in papers.papers()


def test_a_page_has_the_results_of_its_scheme():
    page = pages.page("fox", NOTHING_DRAWN, [])
    rows = {line.split(" | ")[0]: line for line in page.splitlines() if line.startswith("| ")}
    assert "| question | 1x | 2x | 4x | 8x | 16x |" in page
    assert "▲" in rows["| bits per byte, test"] and "±" in rows["| gain, manual"]
    assert "1.000" in rows["| rows right, flip_flop"] and "| rows right, copy" not in rows
    named = page.partition("does not learn these tasks in that training: ")[2].partition(".\n")[0]
    assert "copy" in named.split(", ")
    assert "holds there. | 2503.02130 | reproduced |" in page


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


def test_a_docstring_has_parts():
    documented = docstrings.parse(
        "Does this.\n\nhttps://arxiv.org/abs/2104.09864 (A)\n\n$$ a = b $$\n\n$$\nc\n$$\n\n"
        "Says more,\nhere.\n\nArgs:\n  a, b: two\n    numbers.\n  **c: more.\n\nRaises:\n  E: no."
    )
    assert documented.sentence == "Does this."
    assert documented.source == "https://arxiv.org/abs/2104.09864 (A)"
    assert documented.equations == ["a = b", "c"]
    assert documented.prose == ["Says more,\nhere."]
    assert documented.arguments == {"a": "two numbers.", "b": "two numbers.", "**c": "more."}


def test_a_keyword_of_another_docstring_is_explained_by_it():
    rows = {
        row["name"]: row["says"] for row in pages.arguments("fope", docstrings.of_scheme("fope"))
    }
    assert rows["layout"].startswith("Which channels form a pair.")
    assert rows["base"].endswith("A number, because it decides how many frequencies are kept.")


def test_published_models_are_those_whose_configs_are_read():
    types = models.model_types()
    assert "llama" in types["rope"] and "apertus" in types["llama3"] and "bloom" in types["alibi"]
    assert {"llama4_text"} == set(types["llama4_temperature"])
    assert "llama" not in types["nope"]


def test_golden_arrays_name_schemes():
    named = {name for about in common.INDEX.values() for name in about["schemes"]}
    assert named <= REGISTRY.keys() and {"rope", "fox", "t5"} <= named


@pytest.mark.parametrize("name", ["fox", "irope"])
def test_the_code_of_a_page_runs(name):
    snippets.check(name)


def test_a_pattern_has_no_equation_in_float64():
    assert all(bool(pages.oracle(name)) is (name not in PATTERNS) for name in REGISTRY)


@pytest.mark.parametrize("name", ["of_positions", "of_tokens", "of_hooks", "of_attention"])
def test_a_concept_has_its_picture(name):
    picture = getattr(concepts, name)()._repr_svg_()
    assert picture.count("<path") > 20 and picture.rstrip().endswith("</svg>")
    assert f"concepts.{name}()" in (common.ROOT / "docs/concepts.md").read_text()


@pytest.mark.parametrize(
    ("word", "meant"),
    [("rope_theta", "base"), ("theta", "base"), ("max_position_embeddings", "train_length")]
    + [("dim", "head_dim")],
)
def test_words_of_other_projects_are_answered(word, meant):
    with pytest.raises(TypeError, match=f"did you mean '{meant}'"):
        posenc_jax.make("yarn", head_dim=8, train_length=16, factor=4.0, **{word: 8})


def test_every_golden_array_is_listed_and_used():
    files = {path.stem for path in common.GOLDEN.glob("*.npz")}
    assert files == set(common.INDEX)
    tests = common.GOLDEN.parent.rglob("test_*.py")
    source = "".join(path.read_text() for path in tests)
    assert not [name for name in files if f'"{name}"' not in source]
