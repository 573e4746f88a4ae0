"""Tests that no default changes by accident: most are the published values of their papers.

    python tests/encodings/test_defaults.py

writes the file of defaults anew, after one was changed on purpose.
"""

import inspect
import json
from pathlib import Path

import pytest

import posenc_jax

FILE = Path(__file__).parents[1] / "golden/defaults.json"


def defaults(name):
    """Returns the defaults of a scheme's keywords as JSON has them."""
    parameters = posenc_jax.signature(name).parameters.values()
    given = {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}
    return json.loads(json.dumps(given))


@pytest.mark.parametrize(("name", "expected"), json.loads(FILE.read_text()).items())
def test_defaults(name, expected):
    assert defaults(name) == expected


if __name__ == "__main__":
    lines = (f"{json.dumps(name)}: {json.dumps(defaults(name))}" for name in posenc_jax.REGISTRY)
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n")
