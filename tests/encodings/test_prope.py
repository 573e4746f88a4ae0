"""Compares cameras in attention with the matrices of every pair of tokens."""

import common
import jax
import jax.numpy as jnp
import numpy as np

import posenc_jax
from posenc_jax.positions import cameras, story_time

CAMERAS, ROWS, COLUMNS, TIMES = 3, 2, 2, 6
B, T, H, C = 2, CAMERAS * ROWS * COLUMNS, 2, 16 + TIMES
SIZE = (48, 64)
RNG = np.random.default_rng(0)


def rigid(*shape):
    """Returns a rotation and a shift, ``[..., 4, 4]``."""
    matrix = np.zeros((*shape, 4, 4))
    q, _ = np.linalg.qr(RNG.normal(size=(*shape, 3, 3)))
    matrix[..., :3, :3] = q * np.sign(np.linalg.det(q))[..., None, None]
    matrix[..., :3, 3] = RNG.normal(size=(*shape, 3))
    matrix[..., 3, 3] = 1
    return matrix


VIEWMATS = rigid(B, CAMERAS)
INTRINSICS = np.array([[70.0, 2, 30], [0, 60, 20], [0, 0, 1]]) * np.ones((B, CAMERAS, 1, 1))
# A pause and a step back.
PATCHES = story_time([0.5, 0.5, -2.0], ROWS, COLUMNS)


def make(**keywords):
    return posenc_jax.make("prope", **{"head_dim": C, "time_channels": TIMES} | keywords)


def positions_of(patches=PATCHES, viewmats=VIEWMATS, intrinsics=INTRINSICS, image_size=SIZE):
    return cameras(patches, viewmats, intrinsics, image_size=image_size)


@jax.jit
def attended(encoding, positions, q, k, v):
    here = encoding.at(positions)
    return posenc_jax.attend(here, q, k, v, causal=False)


def heads():
    return [common.normal(seed, B, T, H, C) for seed in range(3)]


def matrix(row, token):
    """Returns what keys of a token are multiplied by, float64 ``[C, C]``: block by block."""
    time, y, x = PATCHES[0, token].astype(np.float64)
    share = np.diag([1 / SIZE[1], 1 / SIZE[0], 1.0])
    share[:2, 2] = -0.5
    lifted, camera = np.eye(4), token // (ROWS * COLUMNS)
    lifted[:3, :3] = share @ INTRINSICS[row, camera]
    projection = lifted @ VIEWMATS[row, camera]
    out = np.zeros((C, C))

    def rotate(start, channels, position, base):
        for i in range(channels // 2):
            angle = -position * base ** (-2 * i / channels)
            rows = [start + i, start + i + channels // 2]
            cos, sin = np.cos(angle), np.sin(angle)
            out[np.ix_(rows, rows)] = [[cos, -sin], [sin, cos]]

    rotate(0, TIMES, time, 1e4)
    for start in (TIMES, TIMES + 4):
        out[start : start + 4, start : start + 4] = np.linalg.inv(projection)
    rotate(TIMES + 8, 4, x, 100.0)
    rotate(TIMES + 12, 4, y, 100.0)
    return out


def test_attention_is_that_of_matrices_of_pairs():
    """Each output is ``out_i = sum_j softmax(q_i D_i^-1 D_j k_j) D_i^-1 D_j v_j``."""
    q, k, v = (x.astype(np.float64) for x in heads())
    expected = np.empty((B, T, H, C))
    for b in range(B):
        keys = np.stack([matrix(b, t) for t in range(T)])
        pairs = np.einsum("tij,sjk->tsik", np.linalg.inv(keys), keys)
        logits = np.einsum("thi,tsij,shj->hts", q[b], pairs, k[b]) / np.sqrt(C)
        weights = np.exp(logits - logits.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        expected[b] = np.einsum("hts,tsij,shj->thi", weights, pairs, v[b])
    common.close(attended(make(), positions_of(), *heads()), expected, rtol=1e-4, atol=1e-4)


def test_cameras_may_be_lists_and_shared_but_must_fit():
    of_all = positions_of(intrinsics=INTRINSICS[:1, :1])
    common.close(positions_of(viewmats=VIEWMATS.tolist()), of_all, atol=1e-6)
    for name, bad in {
        "positions": dict(patches=PATCHES[..., :1]),
        "viewmats": dict(viewmats=VIEWMATS[0]),
        "viewmats must be finite": dict(viewmats=VIEWMATS + np.nan),
        "sequences": dict(viewmats=VIEWMATS[[0, 1, 1]]),
        "cameras of intrinsics": dict(viewmats=VIEWMATS[:, :1]),
        "image_size": dict(image_size=48),
    }.items():
        common.refuses(name, lambda bad=bad: positions_of(**bad))


def test_gradient_by_a_camera():
    """The gradient is that of a small step, so that poses can be trained."""
    encoding, direction = make(), common.normal(4, B, CAMERAS, 4, 4)
    direction[..., 3, :] = 0

    @jax.jit
    @jax.value_and_grad
    def total(viewmats):
        return (attended(encoding, positions_of(viewmats=viewmats), *heads()) ** 2).sum()

    viewmats, step = jnp.float32(VIEWMATS), 1e-2 * direction
    difference = total(viewmats + step)[0] - total(viewmats - step)[0]
    slope = (total(viewmats)[1] * direction).sum()
    np.testing.assert_allclose(slope, difference / 2e-2, rtol=2e-2)
