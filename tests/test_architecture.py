"""Tests which package and file imports which, and what is public."""

import ast
import graphlib
import re
from collections.abc import Iterator
from pathlib import Path

import posenc_jax
from posenc_jax.registry import lookup

ROOT = Path(__file__).parents[1]
PACKAGES = ("posenc_jax", "experiments", "configs")


def imported(module: ast.Module) -> Iterator[str]:
    """Yields the modules of this project that a module imports at its top."""
    for statement in module.body:
        if isinstance(statement, ast.ImportFrom) and statement.module:
            for alias in statement.names:
                below = f"{statement.module}.{alias.name}"
                path = ROOT / below.replace(".", "/")
                is_module = path.is_dir() or path.with_suffix(".py").exists()
                yield below if is_module else statement.module
        elif isinstance(statement, ast.Import):
            yield from (alias.name for alias in statement.names)


def test_packages_import_only_what_is_below_them():
    page = (ROOT / "docs/architecture.md").read_text()
    order = re.findall(r"^\| `((?:posenc_jax|experiments|configs)[\w.]*)` \|", page, re.MULTILINE)

    def place(name):
        """Returns the place of a module's package: the longest name that it begins with."""
        around = [package for package in order if f"{name}.".startswith(f"{package}.")]
        return order.index(max(around, key=len))

    pairs, upward = set(), []
    for path in (path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for other in imported(ast.parse(path.read_text())):
            if other.partition(".")[0] in PACKAGES:
                pairs.add((place(name), place(other)))
                if place(name) > place(other):
                    upward.append((name, other))
    assert len(pairs) > 50 and not upward


def test_no_files_import_each_other_in_a_circle():
    """Imports in functions and for type checkers count too."""
    files = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
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
