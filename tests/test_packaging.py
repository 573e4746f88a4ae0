"""Tests which packages library and experiments need, and what is said where one is missing."""

import ast
import re
import sys

import common
import pytest
import runs

import posenc_jax

ROOT = common.ROOT

# Import names that differ from the names of their packages.
PACKAGES = {"absl": "absl-py", "orbax": "orbax-checkpoint", "PIL": "pillow", "yaml": "pyyaml"}
OURS = {"posenc_jax", "experiments", "configs", "launch"}

HIDE = """
import runpy, sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {hidden!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Hidden())
"""


def without(hidden, program, *arguments):
    """Runs a program as if the packages ``hidden`` were not installed."""
    return runs.program("-c", HIDE.format(hidden=set(hidden)) + program, *arguments)


@pytest.mark.parametrize(
    ("hidden", "program"),
    [
        (["ml_collections"], "runpy.run_path('launch.py', run_name='__main__')"),
        (["matplotlib", "PIL"], "import experiments.results.reports.page"),
        (["matplotlib"], "runpy.run_module('experiments.studies.gallery', run_name='__main__')"),
    ],
)
def test_an_experiment_says_which_extra_is_missing(hidden, program):
    done = without(hidden, program, "--config=configs/images.py:tiny", "--workdir=nowhere")
    assert done.status == 1
    (sentence,) = done.errors.splitlines()
    packages = " and ".join(name.replace("PIL", "pillow") for name in hidden)
    assert sentence.startswith(f"error: experiments need {packages}, which")
    assert sentence.endswith("run: pip install -e '.[experiments]'")
    assert not done.output


EVERYTHING = """
import pkgutil, posenc_jax
for module in pkgutil.walk_packages(posenc_jax.__path__, "posenc_jax."):
    __import__(module.name)
"""


@pytest.mark.parametrize(
    ("hidden", "program"),
    [
        # rich comes with flax, which imports it.
        (["ml_collections", "matplotlib", "PIL"], EVERYTHING),
        (["matplotlib", "PIL"], "import benchmarks.accelerator.__main__"),
    ],
    ids=["library", "accelerator"],
)
def test_what_needs_none_of_them(hidden, program):
    done = without(hidden, program)
    assert done.status == 0, done.errors


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
    files = [file for path in paths for file in ROOT.glob(path)]
    assert files
    for file in files:
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


# What is used although its package keeps it private, because there is no public name for the same,
# and the versions that it was seen in. The first two are used by experiments, the others by tests.
PRIVATE = {
    "pip._internal": "pip 23.2 and 26.3",
    "submitit.slurm.slurm._make_sbatch_string": "submitit 1.5.4",
    "jax._src": "jax 0.10.2",
    "orbax.checkpoint._src": "orbax-checkpoint 0.12.8",
    "etils.epath.backend.fsspec_backend._get_filesystem": "etils 1.15.0",
}


def private_names(file):
    """Returns what a file takes from other packages by a path with an underscore before a name.

    Python's own modules are left out, because ``os._exit`` is public.
    """
    tree, modules = ast.parse(file.read_text()), {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            modules |= {
                alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names
            }
        elif isinstance(node, ast.Import):
            modules |= {alias.asname or alias.name: alias.name for alias in node.names}
    used = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    parts = [path.partition(".") for path in used]
    paths = [modules[name] + dot + rest for name, dot, rest in parts if name in modules]
    ours = OURS | {"benchmarks", "docs"} | sys.stdlib_module_names
    return {
        path
        for path in [*modules.values(), *paths]
        if re.search(r"\._(?!_)", path) and path.partition(".")[0] not in ours
    }


def test_private_names_of_other_packages_are_listed():
    folders = [*LIBRARY, *PROGRAMS, "benchmarks/**/*.py", "parity/**/*.py", "tests/**/*.py"]
    files = [file for pattern in folders for file in ROOT.glob(pattern)]
    names = set().union(*map(private_names, files))
    listed = {name: [prefix for prefix in PRIVATE if name.startswith(prefix)] for name in names}
    assert not [name for name, prefixes in listed.items() if not prefixes]
    assert {prefix for prefixes in listed.values() for prefix in prefixes} == set(PRIVATE)


def test_changelog_and_citation_are_of_this_version():
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"\nversion: {posenc_jax.__version__}\n" in citation
    assert f"\n## [{posenc_jax.__version__}]" in (ROOT / "CHANGELOG.md").read_text()
