"""Cameras in attention, beside the 4 x 4 matrices of every pair of tokens."""

import common
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import posenc_jax
from posenc_jax.encodings import prope

CAMERAS, ROWS, COLUMNS, TIMES = 3, 2, 2, 6
B, T, H, C = 2, CAMERAS * ROWS * COLUMNS, 2, 16 + TIMES
SIZE = (48, 64)
RNG = np.random.default_rng(0)


def rigid(*shape):
    """A rotation and a shift, ``[..., 4, 4]``."""
    matrix = np.zeros((*shape, 4, 4))
    q, _ = np.linalg.qr(RNG.normal(size=(*shape, 3, 3)))
    matrix[..., :3, :3] = q * np.sign(np.linalg.det(q))[..., None, None]
    matrix[..., :3, 3] = RNG.normal(size=(*shape, 3))
    matrix[..., 3, 3] = 1
    return matrix


VIEWMATS = rigid(B, CAMERAS)
INTRINSICS = np.array([[70.0, 2, 30], [0, 60, 20], [0, 0, 1]]) * np.ones((B, CAMERAS, 1, 1))
FRAME_ROW_COLUMN = np.indices((CAMERAS, ROWS, COLUMNS)).reshape(3, 1, -1)
# A pause and a step back.
POSITIONS = np.concatenate(
    [np.array([0.5, 0.5, -2.0])[FRAME_ROW_COLUMN[:1]], FRAME_ROW_COLUMN[1:]]
).astype(np.float32)


def transforms_of(positions=POSITIONS, viewmats=VIEWMATS, time_channels=TIMES, **keywords):
    keywords = {"head_dim": C, "image_size": SIZE, "intrinsics": INTRINSICS} | keywords
    return prope.prepare(positions, viewmats, time_channels=time_channels, **keywords)


@jax.jit
def attended(transforms, q, k, v):
    q, k, v = (
        prope.to_query(transforms, q),
        prope.to_key(transforms, k),
        prope.to_value(transforms, v),
    )
    tokens = posenc_jax.Tokens(jnp.arange(q.shape[1])[None])
    out = posenc_jax.attend(posenc_jax.Encoding(), q, k, v, tokens, causal=False)
    return prope.to_output(transforms, out)


def heads():
    return [common.normal(seed, B, T, H, C) for seed in range(3)]


def matrix(row, token):
    """What keys of a token are multiplied by, float64 ``[C, C]``: block by block."""
    time, y, x = POSITIONS[:, 0, token].astype(np.float64)
    share = np.diag([1 / SIZE[1], 1 / SIZE[0], 1.0])
    share[:2, 2] = -0.5
    lifted, camera = np.eye(4), token // (ROWS * COLUMNS)
    lifted[:3, :3] = share @ INTRINSICS[row, camera]
    projection = lifted @ VIEWMATS[row, camera]
    out = np.zeros((C, C))

    def turn(start, channels, position, base):
        for i in range(channels // 2):
            angle = -position * base ** (-2 * i / channels)
            rows = [start + i, start + i + channels // 2]
            cos, sin = np.cos(angle), np.sin(angle)
            out[np.ix_(rows, rows)] = [[cos, -sin], [sin, cos]]

    turn(0, TIMES, time, 1e4)
    for start in (TIMES, TIMES + 4):
        out[start : start + 4, start : start + 4] = np.linalg.inv(projection)
    turn(TIMES + 8, 4, x, 100.0)
    turn(TIMES + 12, 4, y, 100.0)
    return out


def test_attention_is_that_of_matrices_of_pairs():
    """``out_i = sum_j softmax(q_i D_i^-1 D_j k_j) D_i^-1 D_j v_j``."""
    q, k, v = (x.astype(np.float64) for x in heads())
    expected = np.empty((B, T, H, C))
    for b in range(B):
        keys = np.stack([matrix(b, t) for t in range(T)])
        pairs = np.einsum("tij,sjk->tsik", np.linalg.inv(keys), keys)
        logits = np.einsum("thi,tsij,shj->hts", q[b], pairs, k[b]) / np.sqrt(C)
        weights = np.exp(logits - logits.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        expected[b] = np.einsum("hts,tsij,shj->thi", weights, pairs, v[b])
    np.testing.assert_allclose(attended(transforms_of(), *heads()), expected, rtol=1e-4, atol=1e-4)


def test_no_choice_of_world_axes_or_of_time_zero_shows():
    expected = attended(transforms_of(), *heads())
    for moved in (
        transforms_of(viewmats=VIEWMATS @ rigid()),
        transforms_of(POSITIONS + np.array([7.25, 3, 5], np.float32)[:, None, None]),
    ):
        np.testing.assert_allclose(attended(moved, *heads()), expected, rtol=1e-3, atol=1e-3)
    for other in (
        transforms_of(viewmats=VIEWMATS @ rigid(B, CAMERAS)),
        transforms_of(POSITIONS * np.array([2, 1, 1], np.float32)[:, None, None]),
        transforms_of(intrinsics=None, image_size=None),
        transforms_of(base=4.0),
        transforms_of(time_base=10.0),
    ):
        assert np.abs(attended(other, *heads()) - expected).max() > 1e-2


def test_a_camera_for_every_token():
    each = (np.repeat(x, T // CAMERAS, axis=1) for x in (VIEWMATS, INTRINSICS))
    viewmats, intrinsics = each
    for a, b in zip(
        jax.tree.leaves(transforms_of(viewmats=viewmats, intrinsics=intrinsics)),
        jax.tree.leaves(transforms_of()),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_on_a_mesh_of_explicit_axes():
    mesh = jax.make_mesh((2,), ("data",), (AxisType.Explicit,), devices=jax.devices()[:2])
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    cameras = [np.asarray(x, np.float32) for x in (VIEWMATS, INTRINSICS)]

    @jax.jit
    def run(viewmats, intrinsics, *sides):
        return attended(transforms_of(viewmats=viewmats, intrinsics=intrinsics), *sides)

    with jax.set_mesh(mesh):
        actual = run(*jax.device_put([*cameras, *heads()], sharding))
    np.testing.assert_allclose(actual, attended(transforms_of(), *heads()), atol=1e-5)


def test_bfloat16_in_and_out():
    transforms, (q, _, _) = transforms_of(), heads()
    q = jnp.asarray(q, jnp.bfloat16)
    rounded, exact = (prope.to_query(transforms, x) for x in (q, q.astype(jnp.float32)))
    np.testing.assert_array_equal(rounded, exact.astype(jnp.bfloat16))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"time_channels": 3}, "time_channels=3 must be even"),
        ({"time_channels": 4}, "leave a multiple of 8 of head_dim=22"),
        ({"time_channels": 0, "head_dim": 16}, r"time_channels=0 needs \[2, B, T\]: rows and"),
        ({"positions": POSITIONS[1:]}, r"\(2, 1, 12\), but time_channels=6 needs \[3, B, T\]"),
        (
            {"viewmats": rigid(B, 5), "intrinsics": None, "image_size": None},
            "5 cameras, which cannot share 12 tokens",
        ),
        ({"viewmats": VIEWMATS[0]}, r"viewmats must be \[B, F, 4, 4\], not \(3, 4, 4\)"),
        ({"intrinsics": INTRINSICS[:, :1]}, r"\(2, 1, 3, 3\) do not fit .* must be \(2, 3, 3, 3\)"),
        ({"image_size": None}, "image_size=None and intrinsics go together"),
    ],
)
def test_what_does_not_fit(bad, message):
    with pytest.raises(ValueError, match=message):
        transforms_of(**bad)


def test_heads_of_another_width():
    with pytest.raises(ValueError, match="made for head_dim=22, but heads have 24 channels"):
        prope.to_key(transforms_of(), jnp.zeros((B, T, H, 24)))
