"""Compares normalisation by world time with its equation."""

import common
import jax
import numpy as np
import pytest
from flax import nnx

from posenc_jax.encodings.absolute.time_adaln import TimeAdaLN

B, T, D = 2, 12, 6


def build(**keywords):
    return TimeAdaLN(model_dim=D, hidden=5, rngs=nnx.Rngs(0), **keywords)


def normed(x):
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6)


run = jax.jit(lambda module, x, times: module(x, times))


@pytest.mark.parametrize(("frames", "source_frames"), [(4, 1), (12, 3)])
def test_equation(frames, source_frames):
    module = common.moved(build(source_frames=source_frames, time_scale=2.0), 0)
    weights = common.parameters_float64(module)
    x, times = common.normal(0, B, T, D), common.normal(frames, B, frames)

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
    common.close(run(module, x, times), expected)
    # Tokens of a frame share their time, and no other does.
    other = times.copy()
    other[:, -1] += 1
    changed = (run(module, x, other) != run(module, x, times)).any(-1)
    np.testing.assert_array_equal(changed[0], np.arange(T) >= T - T // count)


def test_starts_as_a_layer_norm_and_learns():
    module, x, times = build(), common.normal(0, B, T, D), common.normal(4, 1, 4)
    common.close(run(module, x, times), normed(x), rtol=1e-4)
    weights = common.normal(1, B, T, D)
    gradient = jax.jit(jax.grad(lambda m: (m(x, times) * weights).sum()))(module)
    for name in ("scale", "shift"):
        assert np.abs(getattr(gradient, name).outer.kernel[...]).max() > 1e-2
