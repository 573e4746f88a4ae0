"""Every keyword of a scheme changes what it computes, or what training does to it.

Keywords whose values ``test_float64`` compares with the equations are not tested again.
"""

import common
import jax
import numpy as np
import pytest
import schemes
from common import far

import posenc_jax
from posenc_jax.positions import text
from posenc_jax.registry import REGISTRY, own_keywords

B, T = 2, 24


# RoPE stands for rules of frequencies in what it does by itself: which channels rotate, and how.
OF_ROPE = {"axes", "rotary_dim", "layout"}
IN_GOLDEN_ARRAYS = {"golden_gate": {"num_axes"}}


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
    scheme = schemes.ALL[name]
    known = varied(name) | scheme.alternatives.keys() | scheme.in_training.keys()
    known |= OF_ROPE if ".rotary.frequencies." in REGISTRY[name] else set()
    known |= IN_GOLDEN_ARRAYS.get(name, set())
    missing = set(own_keywords(name)) - known
    assert not missing, "add another value to the settings or alternatives in tests/schemes"
    assert scheme.alternatives.keys() | scheme.in_training.keys() <= set(own_keywords(name))


@pytest.mark.parametrize("name", [name for name, s in schemes.ALL.items() if s.alternatives])
def test_every_keyword_matters(name):
    for keyword, values in schemes.ALL[name].alternatives.items():
        positions = on_axes(2 if keyword == "axes" else 1)
        one, two = (
            common.attention(common.build(name, **{keyword: value}), residual(), positions)
            for value in values
        )
        assert far(one, two), keyword


@pytest.mark.parametrize("name", [name for name, s in schemes.ALL.items() if s.in_training])
def test_every_keyword_of_training_matters(name):
    """It changes the program of positions in training, or of the scheme's own objective."""

    def in_training(encoding, key):
        return encoding.at(text(T), key=key).tokens.positions, encoding.aux_loss(key)

    def program(**given):
        return str(jax.make_jaxpr(in_training)(common.build(name, **given), jax.random.key(0)))

    usual = program()
    for keyword, value in schemes.ALL[name].in_training.items():
        assert usual != program(**{keyword: value}), keyword


def test_matrices_of_fope_are_trained_where_this_is_asked_for():
    """``test_probe`` tests that they have no gradient otherwise."""

    def loss(encoding):
        return (common.attention(encoding, residual(), on_axes(1)) ** 2).sum()

    gradients = jax.tree.leaves(jax.grad(loss)(common.build("fope", learned=True)))
    assert len(gradients) == 2 and all(far(gradient, 0 * gradient) for gradient in gradients)


def residual() -> np.ndarray:
    return 0.5 * common.normal(0, B, T, common.WIDTH)


def on_axes(num_axes):
    """Returns positions ``[B, T]``, or ``[B, T, num_axes]`` with another order on each axis."""
    positions_ABT = np.tile(np.arange(T, dtype=np.int32), (num_axes, B, 1))
    positions_ABT = np.random.default_rng(0).permuted(positions_ABT, axis=2)
    return positions_ABT[0] if num_axes == 1 else np.moveaxis(positions_ABT, 0, -1)
