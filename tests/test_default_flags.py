"""One scheme of each kind under XLA's own optimisation, which ``conftest`` turns off for speed."""

import importlib.metadata
import os
import re
import subprocess
import sys
from pathlib import Path

import common
import schemes

ROOT = Path(__file__).parents[1]


def test_one_scheme_of_each_kind():
    """Its values are those of its equation in float64."""
    flags = ["--xla_backend_optimization_level=3", "--xla_cpu_parallel_codegen_split_count=32"]
    if importlib.metadata.version("jaxlib").startswith("0.10."):
        flags.append("--xla_cpu_use_fusion_emitters=true")
    tests = [
        f"tests/test_float64.py::test_attention_is_the_equation[{name}-1]"
        for name in common.one_of_each_kind()
        if len(schemes.ALL[name].settings) > 1
    ]
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-n0", *tests],
        cwd=ROOT,
        env=os.environ | {"XLA_FLAGS": " ".join(flags)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert int(re.search(r"(\d+) passed", result.stdout)[1]) == len(tests) > 10
