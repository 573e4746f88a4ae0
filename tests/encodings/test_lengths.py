"""Tests lengths that frequencies adapt to: exact, or refused."""

import common
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import posenc_jax
from posenc_jax.encodings.lib import double
from posenc_jax.encodings.lib.double import Double
from posenc_jax.encodings.rotary.frequencies.ntk import DynamicNTKFrequencies

ADAPTING = {
    "dynamic_pi": {},
    "dynamic_ntk": {"factor": 2.0},
    "dynamic_yarn": {},
    "longrope": {"factor": 600.0},
    "resonance": {"frequencies": DynamicNTKFrequencies(4096)},
}


def adapting(name):
    return posenc_jax.make(name, head_dim=64, train_length=4096, **ADAPTING[name])


@pytest.mark.parametrize("name", ADAPTING)
def test_an_array_says_what_an_int_says(name):
    """The compiler may try hard: the method lives on sums that it must not rearrange."""
    encoding, options = adapting(name), common.USUAL_FLAGS if name == "dynamic_ntk" else {}
    prepare = jax.jit(lambda p, n: encoding.at(p, length=n).tokens.made, compiler_options=options)
    for length in (4096, 8192, 2**21):
        rng = np.random.default_rng(length)
        positions = np.append(rng.integers(0, length, 200), [1, length - 1])[None].astype(np.int32)
        exact = encoding.at(positions, length=length).tokens.made
        traced = prepare(positions, jnp.full((1, 1), length, jnp.float32))
        for one, other in zip(traced, exact, strict=True):
            common.close(one, other, rtol=0, atol=1.2e-6)


@pytest.mark.parametrize("name", ["dynamic_ntk", "longrope"])
def test_a_mark_for_padding_is_no_length(name):
    encoding = adapting(name)
    positions = np.array([[0, 1, 2, 2**30]])
    common.refuses("length", lambda: encoding.at(positions))
    # Where values are not known, every token that would adapt to it is NaN.
    tokens = jax.jit(lambda p: encoding.at(p).tokens)(positions)
    assert np.isnan(tokens.made[0]).all()
    padded = encoding.at(positions, np.array([[1, 1, 1, 0]]), length=3).tokens
    given = encoding.at(positions[:, :3], length=3).tokens
    for one, other in zip(padded.made, given.made, strict=True):
        np.testing.assert_array_equal(one[:, :3], other)


# Numbers of twice the precision


def test_double_arithmetic():
    rng = np.random.default_rng(0)
    x, y = (np.exp(rng.uniform(-12, 12, 2000)) for _ in range(2))
    exact = [x + y, x * y, x / y, x - 3.1, x / 3.1, 3.1 / x, np.log(x), np.round(x)]

    @jax.jit
    def compute(x, y):
        return [x + y, x * y, x / y, x - 3.1, x / 3.1, 3.1 / x, double.log(x), double.rounded(x)]

    for actual, expected in zip(compute(Double.of(x), Double.of(y)), exact, strict=True):
        actual = np.asarray(actual.high, np.float64) + np.asarray(actual.low, np.float64)
        common.close(actual, expected, rtol=2e-13, atol=1e-14)
    exponents = rng.uniform(-20, 20, 2000)
    power = double.exp(Double.of(exponents))
    power = np.asarray(power.high, np.float64) + np.asarray(power.low, np.float64)
    np.testing.assert_allclose(power, np.exp(exponents), rtol=2e-13)
