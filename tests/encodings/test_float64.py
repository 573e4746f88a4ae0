"""Compares every scheme with its paper's equation, written in ``schemes`` in float64 NumPy."""

import functools

import common
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import schemes
from schemes.equations import reference_attention

BATCH, TOKENS, HEAD_DIM = 3, 20, 16
CASES = [(name, i) for name, scheme in schemes.ALL.items() for i in range(len(scheme.settings))]


def inputs(scheme, setting):
    """Returns float32 ``x [B, T, D]``, positions and the projections of a comparison."""
    rng = np.random.default_rng(setting)
    positions = np.stack([rng.choice(150, TOKENS, replace=False) for _ in range(BATCH)])
    positions[0] //= 8  # a row within the training length, with positions that repeat
    positions = positions.astype(np.int32)
    if setting and not scheme.whole_positions_only:
        positions = positions.astype(np.float32) * np.float32(0.75) - 9
    num_axes = axes_of(scheme, setting)
    if num_axes > 1:
        axes = [rng.permuted(positions, axis=1) for _ in range(num_axes)]
        positions = np.stack(axes, axis=-1) + np.arange(num_axes, dtype=positions.dtype)
    x_BTD = 0.5 * common.normal(setting, BATCH, TOKENS, common.WIDTH)
    num_heads = scheme.settings[setting].get("num_heads", common.HEADS)
    return x_BTD, positions, common.projections(num_heads, HEAD_DIM)


def axes_of(scheme, setting):
    """Returns the number of position axes: one for text, in the first comparison."""
    given = scheme.settings[setting]
    of_setting = len(given["grid"]) if "grid" in given else given.get("num_axes", scheme.num_axes)
    return of_setting if setting else 1


@functools.cache
def computed(name):
    """Returns encoding, output, and output at other positions of every setting of a scheme.

    One program computes all settings, which takes half as long as one for each.
    """
    scheme = schemes.ALL[name]
    encodings = [common.build(name, head_dim=HEAD_DIM, **given) for given in scheme.settings]

    # Arguments, because XLA computes with constants while it compiles, which takes longer.
    @jax.jit
    def outputs(encodings, given):
        results = []
        for encoding, (x_BTD, positions, projections) in zip(encodings, given, strict=True):
            both = jnp.concatenate([positions, jnp.roll(positions, 1, axis=1)])
            twice = jnp.concatenate([x_BTD, x_BTD])
            results.append(common.attention(encoding, twice, both, weights=projections))
        return results

    given = [inputs(scheme, setting) for setting in range(len(encodings))]
    split = [np.split(out, 2) for out in jax.device_get(outputs(encodings, given))]
    return list(zip(encodings, *zip(*split, strict=True), strict=True))


@pytest.mark.parametrize(("name", "setting"), CASES)
def test_attention_is_the_equation(name, setting):
    scheme = schemes.ALL[name]
    encoding, actual, elsewhere = computed(name)[setting]
    x_BTD, positions, projections = (
        jax.tree.map(np.float64, item) for item in inputs(scheme, setting)
    )
    given, weights = scheme.settings[setting], common.parameters_float64(encoding)
    expected = reference_attention(scheme.equations, x_BTD, positions, given, weights, projections)
    common.close(actual, expected, atol=2e-5)
    # The comparison is worth something only if the order of positions shows in it.
    assert not scheme.reads_positions or np.abs(elsewhere - expected).max() > 1e-2


@pytest.mark.parametrize("name", common.SCHEMES)
def test_every_scheme_has_its_equation(name):
    assert len(schemes.ALL[name].settings) >= 2, "add the scheme to a module of tests/schemes"
