"""Tests which package and file imports which, and what is public."""

import ast
import graphlib
from pathlib import Path

import posenc_jax
from docs.site.architecture import imports, packages
from posenc_jax.registry import lookup

ROOT = Path(__file__).parents[1]


def test_rooms_import_only_what_is_below_them():
    order = packages((ROOT / "docs/architecture.md").read_text())
    place = {package: number for number, package in enumerate(order)}
    edges = imports(ROOT, order)
    assert len(edges) > 50 and {package for pair in edges for package in pair} <= {*order}
    upward = {pair: files for pair, files in edges.items() if place[pair[0]] > place[pair[1]]}
    assert not upward


def test_no_files_of_the_library_import_each_other_in_a_circle():
    """Imports in functions and for type checkers count too."""
    files = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in (ROOT / "posenc_jax").rglob("*.py")
    }

    def imported(path):
        for statement in ast.walk(ast.parse(path.read_text())):
            if isinstance(statement, ast.ImportFrom):
                for alias in statement.names:
                    below = f"{statement.module}.{alias.name}"
                    yield below if below in files else statement.module
            elif isinstance(statement, ast.Import):
                yield from (alias.name for alias in statement.names)

    graph = {name: files.keys() & {*imported(path)} - {name} for name, path in files.items()}
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
