"""Runs the cases of transformers' own tests of rotary sections.

The cases are those of ``tests/utils/test_modeling_rope_utils.py`` of huggingface/transformers, at
087e8002 for flat sections; sections by kind of layer and ``proportional`` came with transformers 5.
A head of Llama's default config has 128 channels, one of Gemma 3's has 256. The expected numbers
are rows of tables in that file, each with the number of its pair, and what its assertions say in
words: the rest is a formula over plain RoPE. ``docs/how-to/published-models.md`` lists the cases
that are left out.
"""

import math

import numpy as np
import pytest
from golden_checks import cos_and_sin

import posenc_jax

LLAMA = dict(model_type="llama", hidden_size=4096, num_attention_heads=32)
LLAMA |= dict(max_position_embeddings=2048, num_hidden_layers=32)
GEMMA = dict(model_type="gemma3_text", hidden_size=2304, num_attention_heads=8)
GEMMA |= dict(num_hidden_layers=2, layer_types=["full_attention", "sliding_attention"])
GEMMA |= dict(max_position_embeddings=131072, sliding_window=4096)
PLAIN = dict(rope_type="default", rope_theta=1e4)
LONGROPE = dict(short_factor=[2.0] * 64, long_factor=[float(n) for n in range(1, 65)])
LONGROPE |= dict(original_max_position_embeddings=2048)
LLAMA3 = dict(low_freq_factor=1, high_freq_factor=4, original_max_position_embeddings=2048)
FACTORS = (2.0, 10.0, 20.0)
EXACT = dict(rtol=1e-6)


def read(kind, length=1, **keys):
    """Returns the rates and the attention factor of a section in Llama's config."""
    return rates(posenc_jax.from_hf({**LLAMA, "rope_parameters": section(kind, **keys)}), length)


def section(kind, **keys):
    return {"rope_type": kind, "rope_theta": 1e4, **keys}


def rates(encoding, length=1):
    """Reads the angle of each pair off at position 1, and the factor off the lengths."""
    cos, sin = (np.asarray(x[0], np.float64) for x in cos_and_sin(encoding, np.array([1]), length))
    factor = np.hypot(cos, sin)
    np.testing.assert_allclose(factor, factor[0], **EXACT)
    return np.arctan2(sin, cos), factor[0]


def plain(channels=128):
    return 1e4 ** -(np.arange(0, channels, 2) / channels)


# Rows of the tables of the functions test_*_rope_numerically: the number of a pair, and its rate.
TABLES = {
    "default": (section("default"), 1, {1: 8.6596e-1, 31: 1.1548e-2, 63: 1.1548e-4}),
    "dynamic": (
        section("dynamic", factor=10.0),
        16384,
        {1: 8.0931e-1, 16: 3.3872e-2, 32: 1.1473e-3, 47: 4.8018e-5, 63: 1.6265e-6},
    ),
    "yarn": (
        section("yarn", factor=10.0, beta_fast=32, beta_slow=1),
        1,
        {16: 1.0e-1, 17: 8.3479e-2, 28: 1.0101e-2, 40: 4.3007e-4, 41: 2.7384e-4, 63: 1.1548e-5},
    ),
    "llama3": (
        section("llama3", factor=10.0, **LLAMA3),
        1,
        {30: 1.3335e-2, 31: 1.0730e-2, 35: 2.8248e-3, 40: 3.4539e-4, 41: 2.7384e-4, 63: 1.1548e-5},
    ),
    "proportional": (
        section("proportional", partial_rotary_factor=0.25),
        1,
        {0: 1.0, 15: 1.1548e-1, 16: 0.0, 63: 0.0},
    ),
}


@pytest.mark.parametrize("name", TABLES)
def test_tables(name):
    keys, length, rows = TABLES[name]
    inv_freq, _ = rates(posenc_jax.from_hf({**LLAMA, "rope_parameters": keys}), length)
    assert inv_freq.shape == (64,)
    np.testing.assert_allclose(inv_freq[list(rows)], list(rows.values()), rtol=6e-5)


@pytest.mark.parametrize("factor", FACTORS)
def test_formulas(factor):
    """Linear divides every rate, dynamic none of a short text, and YaRN and LongRoPE have factors.

    The rates of YaRN and Llama 3 lie between those of plain RoPE and of linear scaling.
    """
    linear, one = read("linear", factor=factor)
    np.testing.assert_allclose(linear, plain() / factor, **EXACT)
    np.testing.assert_allclose(one, 1, **EXACT)
    for length in (1, 2048):
        dynamic, one = read("dynamic", length, factor=factor)
        np.testing.assert_allclose(dynamic, plain(), **EXACT)
        np.testing.assert_allclose(one, 1, **EXACT)
    longrope = dict(factor=factor, **LONGROPE)
    expected = {"yarn": 0.1 * math.log(factor) + 1, "llama3": 1.0}
    expected["longrope"] = math.sqrt(1 + math.log(factor) / math.log(2048))
    for kind, keys in (("yarn", dict(factor=factor)), ("longrope", longrope)):
        np.testing.assert_allclose(read(kind, **keys)[1], expected[kind], **EXACT)
        np.testing.assert_allclose(read(kind, **keys, attention_factor=0.5)[1], 0.5, **EXACT)
    for kind, keys in (("yarn", {}), ("llama3", LLAMA3)):
        inv_freq, attention_factor = read(kind, factor=factor, **keys)
        np.testing.assert_allclose(attention_factor, expected[kind], **EXACT)
        assert (inv_freq <= plain() * (1 + 1e-6)).all()
        assert (inv_freq >= plain() / factor * (1 - 1e-6)).all()


def test_extreme_ramps():
    yarn, _ = read("yarn", factor=10.0, beta_fast=1000, beta_slow=1)
    np.testing.assert_allclose(yarn[0], 1, **EXACT)
    assert (yarn[1:] < plain()[1:]).all()
    np.testing.assert_allclose(yarn[-20:], plain()[-20:] / 10, **EXACT)
    llama3, _ = read("llama3", factor=10.0, **LLAMA3 | dict(high_freq_factor=1000))
    assert (llama3 < plain()).all()


def test_longrope_divides_by_two_lists():
    short, long = (read("longrope", n, factor=10.0, **LONGROPE)[0] for n in (2048, 2049))
    np.testing.assert_allclose(short, plain() / LONGROPE["short_factor"], **EXACT)
    np.testing.assert_allclose(long, plain() / LONGROPE["long_factor"], **EXACT)


@pytest.mark.parametrize(("share", "rotating"), [(1.0, 64), (0.5, 32), (0.25, 16)])
@pytest.mark.parametrize("factor", [1.0, 2.0, 10.0])
def test_proportional(share, rotating, factor):
    inv_freq, one = read("proportional", partial_rotary_factor=share, factor=factor)
    expected = np.where(np.arange(64) < rotating, plain() / factor, 0)
    np.testing.assert_allclose(inv_freq, expected, **EXACT)
    np.testing.assert_allclose(one, 1, **EXACT)


NEEDED = {
    "linear": dict(factor=2.0),
    "dynamic": dict(factor=2.0),
    "yarn": dict(factor=2.0),
    "longrope": dict(factor=2.0, **LONGROPE),
    "llama3": dict(factor=2.0, **LLAMA3),
}


@pytest.mark.parametrize("kind", ["linear", "dynamic", "longrope", "llama3"])
def test_a_section_without_its_keys_is_refused(kind):
    with pytest.raises(ValueError, match="factor"):
        read(kind)


OWNERS = {"attention_factor": ["yarn", "longrope"], "beta_fast": ["yarn"], "beta_slow": ["yarn"]}
OWNERS |= {"short_factor": ["longrope"], "long_factor": ["longrope"]}


@pytest.mark.parametrize("kind", NEEDED)
@pytest.mark.parametrize("key", OWNERS)
def test_a_key_of_another_type_is_refused(kind, key):
    if kind in OWNERS[key]:
        read(kind, **{key: [1.0] * 64 if key in LONGROPE else 1.0} | NEEDED[kind])
        return
    with pytest.raises(ValueError, match=key):
        read(kind, **{key: 1.0} | NEEDED[kind])


@pytest.mark.parametrize("alike", [True, False])
@pytest.mark.parametrize("kind", ["default", "linear", "yarn", "proportional"])
def test_a_section_for_each_kind_of_layer(kind, alike):
    """Both kinds have the same section, or windows are plain."""
    keys = section(kind, **{"default": {}, "proportional": {}}.get(kind, dict(factor=10.0)))
    sections = {"full_attention": keys, "sliding_attention": keys if alike else PLAIN}
    config = {**GEMMA, "rope_parameters": sections}
    far, near = (posenc_jax.from_hf(config, layer_type=name) for name in sections)
    alone, factor = rates(posenc_jax.from_hf(keys, head_dim=256, max_position_embeddings=131072))
    np.testing.assert_allclose(rates(far)[0], alone, **EXACT)
    np.testing.assert_allclose(rates(far)[1], factor, **EXACT)
    np.testing.assert_allclose(rates(near)[0], alone if alike else plain(256), **EXACT)
