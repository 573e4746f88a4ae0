"""Tests which package and file imports which, and what is public."""

import ast
import graphlib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import posenc_jax
from posenc_jax.registry import lookup

ROOT = Path(__file__).parents[1]
PACKAGES = ("posenc_jax", "experiments", "configs")
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in PACKAGES
    for path in (ROOT / package).rglob("*.py")
}


def imported(statements: Iterable[ast.AST]) -> Iterator[str]:
    """Yields the modules of this project that some statements import."""
    for statement in statements:
        if isinstance(statement, ast.ImportFrom):
            for alias in statement.names:
                below = f"{statement.module}.{alias.name}"
                yield below if below in FILES else statement.module
        elif isinstance(statement, ast.Import):
            yield from (alias.name for alias in statement.names)


def test_packages_import_only_what_is_below_them():
    page = (ROOT / "docs/architecture.md").read_text()
    order = re.findall(r"^\| `((?:posenc_jax|experiments|configs)[\w.]*)` \|", page, re.MULTILINE)
    assert {*order} <= FILES.keys() | {*PACKAGES}, "the page names what is not there"

    def place(name):
        """Returns the place of a module's package: the longest name that it begins with."""
        around = [package for package in order if f"{name}.".startswith(f"{package}.")]
        return order.index(max(around, key=len))

    pairs, upward = set(), []
    for name, path in FILES.items():
        for other in FILES.keys() & {*imported(ast.parse(path.read_text()).body)}:
            pairs.add((place(name), place(other)))
            if place(name) > place(other):
                upward.append((name, other))
    assert len(pairs) > 50 and not upward


def test_no_files_import_each_other_in_a_circle():
    """Imports in functions and for type checkers count too."""
    graph = {
        name: FILES.keys() & {*imported(ast.walk(ast.parse(path.read_text())))} - {name}
        for name, path in FILES.items()
    }
    assert graph["posenc_jax.model.transformer"] >= {"posenc_jax.model.cache"}
    graphlib.TopologicalSorter(graph).prepare()  # raises an error that names the files of a circle


def test_every_scheme_is_a_public_name_that_editors_know():
    tree = ast.parse((ROOT / "posenc_jax/__init__.py").read_text())
    known = {
        f"{statement.module}:{alias.name}"
        for statement in ast.walk(tree)
        if isinstance(statement, ast.ImportFrom)
        for alias in statement.names
    }
    for name, where in posenc_jax.REGISTRY.items():
        attribute = where.partition(":")[2]
        assert where in known and attribute in dir(posenc_jax)
        assert getattr(posenc_jax, attribute) is lookup(name)
