"""Every keyword changes something, and no default or initial value changes by accident.

    PYTHONPATH=tests python tests/encodings/test_keywords.py

writes the defaults and initial values anew, after one was changed on purpose. Most are those of
their papers.
"""

import inspect
import json

import common
import jax
import numpy as np
import pytest
import schemes

import posenc_jax
from posenc_jax.positions import text
from posenc_jax.registry import REGISTRY, own_keywords

DEFAULTS, INITIAL = common.GOLDEN / "defaults.json", common.GOLDEN / "initial_values.json"
# Their parameters begin at the same values whatever the seed.
NOT_DRAWN = "circulant_string", "cope", "grape_m", "lerope", "log_scale", "ssmax", "string"
# RoPE stands for rules of frequencies in what it does by itself: which channels rotate, and how.
OF_ROPE = {"axes", "rotary_dim", "layout"}
IN_GOLDEN_ARRAYS = {"golden_gate": {"num_axes"}, "rope": {"axes"}, "fope": {"gain"}}


def varied(name):
    """Returns the keywords that have several values where ``test_float64`` reads the equations.

    The equations read them too, so that a keyword which changed nothing would be noticed.
    """
    parameters, scheme = posenc_jax.signature(name).parameters, schemes.ALL[name]

    def values(key):
        usual = scheme.overrides.get(key, parameters[key].default)
        return {repr(given.get(key, usual)) for given in scheme.settings}

    return {key for key in own_keywords(name) if len(values(key)) > 1}


@pytest.mark.parametrize("name", schemes.ALL)
def test_every_keyword_is_tested(name):
    in_training = schemes.ALL[name].in_training.keys()
    known = varied(name) | in_training | IN_GOLDEN_ARRAYS.get(name, set())
    is_rope = any(part in REGISTRY[name] for part in (".rotary.frequencies.", ".rotary.longrope:"))
    missing = set(own_keywords(name)) - known - (OF_ROPE if is_rope else set())
    assert not missing, "add another value to the settings in tests/schemes"
    assert in_training <= set(own_keywords(name))


@pytest.mark.parametrize("name", [name for name, s in schemes.ALL.items() if s.in_training])
def test_every_keyword_of_training_matters(name):
    """It changes the program of positions in training, or of the scheme's own objective."""

    def in_training(encoding, key):
        return encoding.at(text(24), key=key).tokens.positions, encoding.aux_loss(key)

    def program(**given):
        return str(jax.make_jaxpr(in_training)(common.build(name, **given), jax.random.key(0)))

    usual = program()
    for keyword, value in schemes.ALL[name].in_training.items():
        assert usual != program(**{keyword: value}), keyword


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
