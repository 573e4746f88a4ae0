"""Every file of examples/ runs to its end, where it checks what it shows."""

import runpy

import common
import jax
import numpy as np
import pytest

EXAMPLES = sorted((common.ROOT / "examples").glob("*.py"))


# Those of other libraries take as long, and break when these change.
OTHERS = {"haiku_decoder", "equinox_decoder"}


@pytest.mark.parametrize(
    "path",
    [pytest.param(p, marks=[pytest.mark.slow] * (p.stem in OTHERS), id=p.stem) for p in EXAMPLES],
)
def test_an_example_runs(path, capsys):
    with jax.numpy_rank_promotion("allow"):  # as users have it
        result = runpy.run_path(str(path))["main"]()
    assert capsys.readouterr().out.strip()
    for array in jax.tree.leaves(result):
        assert np.isfinite(array).all()
