"""Compares cameras in attention with the authors' code, and with the matrix of each token."""

import functools

import common
import jax
import numpy as np
import pytest
from golden_checks import close

import posenc_jax
from posenc_jax.positions import cameras, story_time


@functools.partial(jax.jit, static_argnames="size")
def attended(encoding, patches, viewmats, intrinsics, size, q, k, v):
    """Attends with matrices that are traced, as those of poses that are trained."""
    here = encoding.at(cameras(patches, viewmats, intrinsics, image_size=size))
    side = posenc_jax.Side(None, k.shape[2], is_query=False)
    out = posenc_jax.attend(here, q, k, v, causal=False)
    return out, encoding.rotate(k, here.tokens, side)


@pytest.mark.parametrize("name", ["out", "out_world_changed"])
def test_golden(name):
    arrays, params = common.golden("prope")
    viewmats, grid = arrays["viewmats"], (params["patches_y"], params["patches_x"])
    patches = np.indices((viewmats.shape[1], *grid), np.int32)[1:].reshape(2, -1).T[None]
    if name == "out_world_changed":
        viewmats = viewmats @ arrays["world_change"]
    size = params["image_height"], params["image_width"]
    encoding = posenc_jax.make("prope", head_dim=params["head_dim"], base=params["rope_base"])
    sides = (arrays[key] for key in "qkv")
    out, _ = attended(encoding, patches, viewmats, arrays["Ks"], size, *sides)
    close(out, arrays[name], rtol=1e-5, atol=1e-5)


CAMERAS, ROWS, COLUMNS, TIMES = 3, 2, 2, 6
B, T, H, C = 2, CAMERAS * ROWS * COLUMNS, 2, 16 + TIMES
SIZE = (48, 64)
VIEWMATS = common.normal(0, B, CAMERAS, 4, 4) + 3 * np.eye(4, dtype=np.float32)
VIEWMATS[..., 3, :] = [0, 0, 0, 1]
INTRINSICS = np.array([[70.0, 2, 30], [0, 60, 20], [0, 0, 1]]) * np.ones((B, CAMERAS, 1, 1))
# A pause and a step back.
PATCHES = story_time([0.5, 0.5, -2.0], ROWS, COLUMNS)


def matrix(row, token):
    """Returns what keys of a token are multiplied by, float64 ``[C, C]``: block by block."""
    time, y, x = PATCHES[0, token].astype(np.float64)
    share = np.diag([1 / SIZE[1], 1 / SIZE[0], 1.0])
    share[:2, 2] = -0.5
    lifted, camera = np.eye(4), token // (ROWS * COLUMNS)
    lifted[:3, :3] = share @ INTRINSICS[row, camera]
    out = np.zeros((C, C))

    def rotate(start, channels, position, base):
        for i in range(channels // 2):
            angle = -position * base ** (-2 * i / channels)
            rows = [start + i, start + i + channels // 2]
            cos, sin = np.cos(angle), np.sin(angle)
            out[np.ix_(rows, rows)] = [[cos, -sin], [sin, cos]]

    rotate(0, TIMES, time, 1e4)
    for start in (TIMES, TIMES + 4):
        inverse = np.linalg.inv(lifted @ VIEWMATS[row, camera])
        out[start : start + 4, start : start + 4] = inverse
    rotate(TIMES + 8, 4, x, 100.0)
    rotate(TIMES + 12, 4, y, 100.0)
    return out


def test_keys_beside_times_and_skewed_cameras():
    encoding = posenc_jax.make("prope", head_dim=C, time_channels=TIMES)
    q, k, v = (common.normal(seed, B, T, H, C) for seed in range(3))
    expected = [[k[b, t] @ matrix(b, t).T for t in range(T)] for b in range(B)]
    _, keys = attended(encoding, PATCHES, VIEWMATS, INTRINSICS, SIZE, q, k, v)
    common.close(keys, expected, rtol=1e-4, atol=1e-4)


def test_cameras_may_be_lists_and_shared_but_must_fit():
    def positions_of(patches=PATCHES, viewmats=VIEWMATS, intrinsics=INTRINSICS, image_size=SIZE):
        return cameras(patches, viewmats, intrinsics, image_size=image_size)

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
