"""Compares normalisation by world time with its equation."""

import common
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from posenc_jax.encodings.absolute.time_adaln import TimeAdaLN

B, T, D = 2, 12, 6


def build(**keywords):
    return TimeAdaLN(**{"model_dim": D, "hidden": 5, "rngs": nnx.Rngs(0)} | keywords)


def normed(x):
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6)


@jax.jit
def run(module, x, times):
    return module(x, times)


def times_of(frames, rows=B):
    return np.random.default_rng(frames).uniform(-1, 3, (rows, frames)).astype(np.float32)


@pytest.mark.parametrize(("frames", "source_frames"), [(4, 1), (12, 3)])
def test_equation(frames, source_frames):
    module = common.moved(build(source_frames=source_frames, time_scale=2.0), 0)
    weights = common.parameters_float64(module)
    x, times = common.normal(0, B, T, D), times_of(frames)

    def affine(y, path):
        return y @ weights[f"{path}.kernel"] + weights[f"{path}.bias"]

    def silu(y):
        return y / (1 + np.exp(-y))

    expected = np.empty((B, T, D))
    count = frames // source_frames
    for row, token in np.ndindex(B, T):
        frame = token * count // T
        of_frame = times[row, frame * source_frames : (frame + 1) * source_frames] / 2.0
        e = affine(of_frame.astype(np.float64), "convolution")
        scale, shift = (
            affine(silu(affine(silu(e), f"{name}.inner")), f"{name}.outer")
            for name in ("scale", "shift")
        )
        expected[row, token] = normed(x[row, token].astype(np.float64)) * (1 + scale) + shift
    np.testing.assert_allclose(run(module, x, times), expected, rtol=1e-5, atol=1e-5)
    # Tokens of a frame share their time, and no other does.
    other = times.copy()
    other[:, -1] += 1
    changed = (run(module, x, other) != run(module, x, times)).any(-1)
    np.testing.assert_array_equal(changed[0], np.arange(T) >= T - T // count)


def test_starts_as_a_layer_norm_and_learns():
    module, x, times = build(), common.normal(0, B, T, D), times_of(4, rows=1)
    np.testing.assert_allclose(run(module, x, times), normed(x), rtol=1e-4, atol=1e-5)
    weights = common.normal(1, B, T, D)
    gradient = jax.grad(lambda m: (m(x, times) * weights).sum())(module)
    for name in ("scale", "shift"):
        assert np.abs(getattr(gradient, name).outer.kernel[...]).max() > 1e-2


def test_bfloat16_in_and_out():
    module, x = common.moved(build(), 0), common.normal(0, B, T, D)
    exact, rounded = run(module, x, times_of(4)), run(module, jnp.bfloat16(x), times_of(4))
    assert rounded.dtype == jnp.bfloat16
    np.testing.assert_allclose(rounded.astype(np.float32), exact, atol=0.05)


@pytest.mark.parametrize(
    ("keywords", "frames", "message"),
    [
        ({}, 5, r"times of shape \(2, 5\) .* are 5 frames, which cannot share 12 tokens"),
        ({}, 24, "24 frames, which cannot share 12 tokens"),
        ({"source_frames": 4}, 6, "source_frames=4 are 1.5 frames"),
    ],
)
def test_frames_must_fit(keywords, frames, message):
    with pytest.raises(ValueError, match=message):
        build(**keywords)(jnp.zeros((B, T, D)), times_of(frames))


def test_times_must_be_finite():
    times = np.array([[0.0, np.nan, 2.0]], np.float32)
    with pytest.raises(ValueError, match=r"times must be finite, not \[\[0.0, nan, 2.0\]\]"):
        build()(jnp.zeros((B, T, D)), times)
    compiled = run(build(), jnp.zeros((B, T, D)), times)
    np.testing.assert_array_equal(np.isnan(compiled[0]).all(-1), np.arange(T) // 4 == 1)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"source_frames": 0}, "source_frames=0 must be"),
        ({"time_scale": 0.0}, "time_scale=0.0"),
        ({"time_scale": float("inf")}, "time_scale=inf must be a positive number, finite"),
    ],
)
def test_bad_values(keywords, message):
    with pytest.raises(ValueError, match=message):
        build(**keywords)
