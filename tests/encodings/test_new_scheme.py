"""A scheme of one's own, in one file and one line of the registry, passes the tests.

The README's example is copied into the package for a run of pytest in a process of its own, where
it is one more scheme of the registry.
"""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from posenc_jax import registry

ROOT = Path(__file__).parents[2]  # ``common`` reads the registry, which is not complete yet
FILES = [
    *(f"encodings/test_{name}.py" for name in ("probe", "float64", "transformations")),
    *(f"attention/test_{name}.py" for name in ("fused", "implementations", "meshes")),
]


def example() -> tuple[str, str, str]:
    """Returns the scheme's name, its line in the registry and its file, as the README has them."""
    text = (ROOT / "README.md").read_text()
    blocks = re.findall(r"```python.*?\n(.*?)```", text, re.DOTALL)
    (file,) = (block for block in blocks if re.search(r"^class \w+\(Encoding\)", block, re.M))
    (line,) = (block for block in blocks if re.fullmatch(r' *"\w+": "[\w.]+:\w+",\n', block))
    name, where = re.findall(r'"([^"]+)"', line)
    return name, where, file


def pytest_configure(config):
    """Adds the example to the registry, where pytest was started with this file as a plugin."""
    name, where, file = example()
    module = where.split(":")[0]
    spec = importlib.util.spec_from_loader(module, loader=None)
    assert spec is not None
    sys.modules[module] = importlib.util.module_from_spec(spec)
    exec(file, vars(sys.modules[module]))
    registry.REGISTRY[name] = where


@pytest.mark.slow
def test_the_example_passes_the_tests_of_every_scheme():
    name, _, _ = example()
    options = ["-n0", "-rs", "-ptest_new_scheme", f"-k{name}"]
    command = [sys.executable, "-m", "pytest", *options, *(f"tests/{file}" for file in FILES)]
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "tests", Path(__file__).parent)))
    result = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert int(re.search(r"(\d+) passed", result.stdout)[1]) >= 15
    assert f"no equation for '{name}': add it" in result.stdout


def test_the_example_is_as_the_linter_wants_it():
    pytest.importorskip("ruff")
    ruff = [sys.executable, "-m", "ruff"]
    for command in (["check"], ["format", "--check"]):
        arguments = [*ruff, *command, "--stdin-filename=root.py", "-"]
        result = subprocess.run(arguments, input=example()[2], text=True, cwd=ROOT)
        assert result.returncode == 0
