"""Tests lengths that frequencies adapt to: exact, or refused."""

import dataclasses
import functools
from typing import Unpack

import common
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import posenc_jax
from posenc_jax.encodings.bias.alibi import ALiBi
from posenc_jax.encodings.bias.alibi_2d import ALiBi2D
from posenc_jax.encodings.lib import double
from posenc_jax.encodings.lib.double import Double
from posenc_jax.encodings.rotary.frequencies.base import Frequencies, geometric
from posenc_jax.encodings.rotary.frequencies.ntk import DynamicNTKFrequencies
from posenc_jax.encodings.rotary.longrope import LongRoPE, longrope2
from posenc_jax.encodings.rotary.rope import RoPE, Rotating
from posenc_jax.registry import REGISTRY, keywords, lookup

ADAPTING = {
    "dynamic_pi": {},
    "dynamic_ntk": {"factor": 2.0},
    "dynamic_yarn": {},
    "longrope": {"factor": 600.0},
    "resonance": {"frequencies": DynamicNTKFrequencies(4096)},
    "time_rope": {"frequencies": DynamicNTKFrequencies(4096)},
}


def adapting(name):
    return posenc_jax.make(name, head_dim=64, train_length=4096, **ADAPTING[name])


@pytest.mark.parametrize(
    ("name", "options"),
    [*((name, {}) for name in ADAPTING), ("dynamic_ntk", common.USUAL_FLAGS)],
    ids=[*ADAPTING, "hard"],
)
def test_an_array_says_what_an_int_says(name, options):
    """The compiler may try hard: the method lives on sums that it must not rearrange."""
    encoding = adapting(name)
    prepare = jax.jit(lambda p, n: encoding.at(p, length=n).tokens.made, compiler_options=options)
    for length in (4096, 8192, 2**21):
        rng = np.random.default_rng(length)
        positions = np.append(rng.integers(0, length, 200), [1, length - 1])[None].astype(np.int32)
        exact = encoding.at(positions, length=length).tokens.made
        traced = prepare(positions, jnp.full((1, 1), length, jnp.float32))
        for one, other in zip(traced, exact, strict=True):
            common.close(one, other, rtol=0, atol=1.2e-6)


def test_the_default_length_of_long_documents():
    """The default length is an array, found from the positions of each document."""
    encoding = adapting("dynamic_yarn")
    rng = np.random.default_rng(0)
    first, second = (np.append(rng.integers(0, last, 50), last) for last in (8_191, 2_000_000))
    positions = np.concatenate([first, second])[None].astype(np.int32)
    segment_ids = np.repeat([[3, 1]], 51, axis=1)
    tokens = jax.jit(lambda p, s: encoding.at(p, s).tokens)(positions, segment_ids)
    for part, length in ((slice(51), 8192), (slice(51, None), 2_000_001)):
        exact = encoding.at(positions[:, part], length=length).tokens.made
        for one, other in zip(tokens.made, exact, strict=True):
            common.close(one[:, part], other, rtol=0, atol=1.2e-6)


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


# Sizes are checked by who takes them, as schemes are built without make too

LONGROPE = dict(head_dim=8, attention_factor=1.0, factor=2.0)


def of_rule(name):
    """Returns the class of a scheme with a rule, for a factor if it asks for one."""
    factor = {"factor": 2.0} if "factor" in keywords(lookup(name)) else {}
    return functools.partial(lookup(name), head_dim=8, **factor)


RULES = [name for name, where in REGISTRY.items() if ".rotary.frequencies." in where]
SIZED = [of_rule(name) for name in RULES if "train_length" in keywords(lookup(name))]
SIZED += [functools.partial(scheme, **LONGROPE) for scheme in (LongRoPE, longrope2)]


@pytest.mark.parametrize("build", [*SIZED, ALiBi, ALiBi2D])
def test_sizes_are_whole_numbers(build):
    size = "num_heads" if build in (ALiBi, ALiBi2D) else "train_length"
    for wrong in (-5, 0, 2.5, True, np.nan, None):
        common.refuses(f"{size}={wrong}", lambda wrong=wrong: build(**{size: wrong}))


# A rule and its encoding


@dataclasses.dataclass(frozen=True)
class HalvedFrequencies(Frequencies):
    times: float

    def __call__(self, channels, base, length):
        return geometric(channels, base) / self.times, 1.0


class Halved(RoPE):
    def __init__(self, *, head_dim: int, times: float = 2.0, **rope: Unpack[Rotating]):
        super().__init__(head_dim=head_dim, frequencies=HalvedFrequencies(times), **rope)


def test_an_encoding_with_a_rule_of_its_own_takes_the_keywords_of_rope(monkeypatch):
    monkeypatch.setitem(posenc_jax.REGISTRY, "halved", f"{__name__}:Halved")
    encoding = posenc_jax.make("halved", head_dim=8, base=100.0, times=4.0)
    assert encoding.base == 100.0 and encoding.frequencies == HalvedFrequencies(4.0)
    common.refuses("'times'", lambda: posenc_jax.make("halved", head_dim=8, time=4.0), TypeError)
    common.refuses(
        "frequencies", lambda: posenc_jax.make("halved", head_dim=8, frequencies=None), TypeError
    )


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
