"""Tests what a user installs: the wheel, with the oldest and with the newest jax that it allows."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import common
import pytest

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
