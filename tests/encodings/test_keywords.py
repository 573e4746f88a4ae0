"""Every keyword of a scheme changes what it computes, or what training does to it.

Keywords whose values ``test_float64`` compares with the equations are not tested again.
"""

import common
import jax
import numpy as np
import pytest
import schemes
from common import far
from jax.interpreters.partial_eval import dce_jaxpr

import posenc_jax
from posenc_jax.positions import text
from posenc_jax.registry import REGISTRY, own_keywords

B, T = 2, 24


# RoPE stands for rules of frequencies in what it does by itself: which channels rotate, and how.
OF_ROPE = {"axes", "rotary_dim", "layout"}


def varied(name):
    """Returns the keywords of which ``test_float64`` compares several values with the equations.

    The equations read them there, so that a keyword which changed nothing would be noticed.
    """
    parameters, scheme = posenc_jax.signature(name).parameters, schemes.ALL[name]

    def values(key):
        usual = scheme.overrides.get(key, parameters[key].default)
        return {repr(given.get(key, usual)) for given in scheme.settings}

    return {key for key in own_keywords(name) if len(values(key)) > 1}


@pytest.mark.parametrize("name", schemes.ALL)
def test_every_keyword_is_tested(name):
    known = varied(name) | set(schemes.ALL[name].alternatives)
    if ".rotary.frequencies." in REGISTRY[name]:
        known |= OF_ROPE
    missing = set(own_keywords(name)) - known
    assert not missing, (
        f"no other value of {sorted(missing)} to test {name!r} with: add one to its settings in "
        f"tests/schemes, or to its alternatives where the equations do not have it"
    )
    assert not set(schemes.ALL[name].alternatives) - set(own_keywords(name))


def alternatives(name, **kind):
    """Returns the other values of a scheme's keywords, those of one kind."""
    return {
        key: other
        for key, other in schemes.ALL[name].alternatives.items()
        if all(getattr(other, k) == is_so for k, is_so in kind.items())
    }


def settings(keyword, other):
    """Returns both sides of a comparison: keywords, and the number of position axes."""
    baseline = {} if other.baseline is None else {keyword: other.baseline}
    one = other.beside | baseline, other.baseline_axes or other.num_axes
    return one, (other.beside | {keyword: other.value}, other.num_axes)


MATTER = [n for n in schemes.ALL if alternatives(n, trains=False, training_only=False)]
IN_TRAINING = [n for n in schemes.ALL if alternatives(n, training_only=True)]
TRAINED = [n for n in schemes.ALL if alternatives(n, trains=True)]


@pytest.mark.parametrize("name", MATTER)
def test_every_keyword_matters(name):
    for keyword, other in alternatives(name, trains=False, training_only=False).items():
        one, two = (
            common.attention(common.build(name, **given), residual(), on_axes(num_axes))
            for given, num_axes in settings(keyword, other)
        )
        assert far(one, two), keyword


@pytest.mark.parametrize("name", IN_TRAINING)
def test_every_keyword_of_training_matters(name):
    """It changes the program of positions in training, or of the scheme's own objective."""

    def in_training(encoding, key):
        return encoding.tokens(text(T), key=key).positions, encoding.aux_loss(key)

    def program(given):
        jaxpr = jax.make_jaxpr(in_training)(common.build(name, **given), jax.random.key(0)).jaxpr
        return str(dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))[0])

    for key, other in alternatives(name, training_only=True).items():
        one, two = (program(given) for given, _ in settings(key, other))
        assert one != two, key


@pytest.mark.parametrize("name", TRAINED)
def test_a_keyword_that_says_what_is_trained(name):
    """It changes no output, but every gradient."""

    def loss(encoding):
        out = common.attention(encoding, residual(), on_axes(1))
        return (out**2).sum(), out

    for keyword, other in alternatives(name, trains=True).items():
        one, two = (common.build(name, **given) for given, _ in settings(keyword, other))
        (_, output), gradients = jax.value_and_grad(loss, has_aux=True)(one)
        (_, same), others = jax.value_and_grad(loss, has_aux=True)(two)
        common.close(output, same)
        assert all(
            far(*pair) for pair in zip(*map(jax.tree.leaves, (gradients, others)), strict=True)
        )


def residual() -> np.ndarray:
    return 0.5 * common.normal(0, B, T, common.WIDTH)


def on_axes(num_axes):
    """Returns ``[B, T]`` positions, or ``[B, T, num_axes]`` with another order on each axis."""
    limit = 100 - 5 * (num_axes - 1)
    rng = np.random.default_rng(limit)
    positions = np.stack([rng.choice(limit, T, replace=False) for _ in range(B)]).astype(np.int32)
    if num_axes == 1:
        return positions
    others = [positions[:, ::-1] + 5 * axis for axis in range(1, num_axes)]
    return np.stack([positions, *others], axis=-1)
