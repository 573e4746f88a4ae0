"""Tests which packages library and experiments need."""

import ast
import sys

import common

import posenc_jax

ROOT = common.ROOT

# Import names that differ from the names of their packages.
PACKAGES = {"absl": "absl-py", "orbax": "orbax-checkpoint", "PIL": "pillow", "yaml": "pyyaml"}
OURS = {"posenc_jax", "experiments", "configs", "launch"}


def requirements() -> dict[str, list[str]]:
    """Returns the lists of packages in setup.py, without versions."""
    lists = {}
    for statement in ast.parse((ROOT / "setup.py").read_text()).body:
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.List):
            names = ast.literal_eval(statement.value)
            lists[statement.targets[0].id] = [name.partition(">")[0] for name in names]
    return lists


def imported(*paths) -> set[str]:
    """Returns the packages that modules import when imported, by their names in a registry."""
    modules = set()
    for file in (file for path in paths for file in ROOT.glob(path)):
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.Import):
                modules |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                modules.add(node.module)
    names = {name.partition(".")[0] for name in modules} - OURS - sys.stdlib_module_names
    return {PACKAGES.get(name, name) for name in names}


LIBRARY, PROGRAMS = ["posenc_jax/**/*.py"], ["experiments/**/*.py", "configs/*.py", "launch.py"]


def test_what_is_imported_is_required_and_the_other_way_round():
    lists = requirements()
    assert imported(*LIBRARY) <= set(lists["REQUIRED"])
    assert imported(*LIBRARY, *PROGRAMS) == {*lists["REQUIRED"], *lists["EXPERIMENTS"]}


def test_changelog_and_citation_are_of_this_version():
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"\nversion: {posenc_jax.__version__}\n" in citation
    assert f"\n## [{posenc_jax.__version__}]" in (ROOT / "CHANGELOG.md").read_text()
