"""Tests that no default or initial value changes by accident: most are those of their papers.

    PYTHONPATH=tests python tests/encodings/test_defaults.py

writes both files anew, after one was changed on purpose.
"""

import inspect
import json

import common
import numpy as np
import pytest

import posenc_jax

DEFAULTS, INITIAL = common.GOLDEN / "defaults.json", common.GOLDEN / "initial_values.json"
# Their parameters begin at the same values whatever the seed.
NOT_DRAWN = "circulant_string", "cope", "grape_m", "lerope", "log_scale", "ssmax", "string"


def defaults(name):
    """Returns the defaults of a scheme's keywords as JSON has them."""
    parameters = posenc_jax.signature(name).parameters.values()
    given = {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}
    return json.loads(json.dumps(given))


def initial(name, seed=0):
    """Returns the mean of the sizes of each parameter's numbers, as drawn with a seed."""
    parameters = common.parameter_paths(common.build(name, trained=False, seed=seed))
    sizes = {".".join(path): np.abs(np.asarray(x, float)).mean() for path, x in parameters}
    return {path: float(f"{size:.4g}") for path, size in sizes.items()}


@pytest.mark.parametrize(("name", "expected"), json.loads(DEFAULTS.read_text()).items())
def test_defaults(name, expected):
    assert defaults(name) == expected


@pytest.mark.parametrize(("name", "expected"), json.loads(INITIAL.read_text()).items())
def test_initial_values(name, expected):
    assert initial(name) == pytest.approx(expected, rel=2e-3)
    assert (initial(name, seed=1) == initial(name)) == (name in NOT_DRAWN)


def _lines(table) -> str:
    lines = (f"{json.dumps(name)}: {json.dumps(row)}" for name, row in table.items())
    return "{\n" + ",\n".join(lines) + "\n}\n"


if __name__ == "__main__":
    DEFAULTS.write_text(_lines({name: defaults(name) for name in posenc_jax.REGISTRY}))
    rows = {name: initial(name) for name in common.SCHEMES}
    INITIAL.write_text(_lines({name: row for name, row in rows.items() if row}))
