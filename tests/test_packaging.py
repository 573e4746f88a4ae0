"""Tests which packages library and experiments need, and what is said where one is missing."""

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import common
import pytest
import tiny_runs as runs

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
        (["matplotlib", "PIL"], "import benchmarks.accelerator"),
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
# and the versions that it was seen in. The first one is used by experiments, the others by tests.
PRIVATE = {
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
        if isinstance(node, ast.ImportFrom | ast.Import):
            start = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
            modules |= {alias.asname or alias.name: start + alias.name for alias in node.names}
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


# The wheel


# The bounds of setup.py: raise them together.
OLDEST = ["jax==0.10.0", "jaxlib==0.10.0", "flax==0.12.4"]
# The first Python of README.md, and the parity with what Flax has of its own.
FIRST_SNIPPET = re.search(r"```python\n(.*?)```", (common.ROOT / "README.md").read_text(), re.S)
FLAX_ROPE = """
import numpy as np
from flax import nnx
from posenc_jax import functional
from posenc_jax.encodings.rotary.frequencies import YaRN

if hasattr(nnx, "RoPE"):  # flax 0.12.12
    x_BTHC, positions = q, jnp.arange(128)[None]
    cos, sin = functional.rope_tables(positions, 64)
    rope = nnx.RoPE(embedding_size=64, max_seq_len=128)
    by_flax = rope(x_BTHC.swapaxes(1, 2)).swapaxes(1, 2)
    np.testing.assert_allclose(functional.apply_rope(x_BTHC, cos, sin), by_flax, atol=2e-4)

    # The tables of another rule can take the place of Flax's.
    rule = YaRN(train_length=32, factor=4.0)
    cos, sin = functional.rope_tables(positions, 64, frequencies=rule)
    rope.cached_cos, rope.cached_sin = nnx.Variable(cos[0]), nnx.Variable(sin[0])
    by_flax = rope(x_BTHC.swapaxes(1, 2)).swapaxes(1, 2)
    np.testing.assert_allclose(functional.apply_rope(x_BTHC, cos, sin), by_flax, atol=1e-5)
print("right")
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    shutil.copytree(
        common.ROOT, source, ignore=shutil.ignore_patterns(".*", "build", "runs", "*.egg-info")
    )
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", f"--wheel-dir={folder}", source)
    return next(folder.glob("*.whl"))


def run(*command) -> str:
    # Without the flags of these tests, which another jax may not know.
    env = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(("python", "pins"), [("", OLDEST), ("python3.13", [])])
def test_the_wheel_runs_the_first_snippet(wheel, python, pins, tmp_path):
    interpreter = shutil.which(python) or sys.executable  # the newest jax may need a newer Python
    run(interpreter, "-m", "venv", tmp_path)
    run(tmp_path / "bin/pip", "install", "-q", wheel, *pins)
    (tmp_path / "snippet.py").write_text(FIRST_SNIPPET[1] + FLAX_ROPE)
    assert run(tmp_path / "bin/python", tmp_path / "snippet.py").endswith("right\n")
    assert "posenc COMMAND" in run(tmp_path / "bin/posenc", "--help")
