"""Schemes under the transformations of JAX: vmap, forward mode, second derivatives."""

import functools

import common
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import close_trees

import posenc_jax

B, T = 2, 5
POSITIONS = np.array([[0, 1, 3, 4, 9], [2, 0, 1, 5, 4]], np.int32)
SEGMENT_IDS = np.array([[0, 0, 0, 1, 1], [0, 1, 1, 1, 1]], np.int32)
WEIGHTS_BTHC = common.normal(30, B, T, common.HEADS, common.HEAD_DIM)


def residual(seed: int):
    return 0.5 * common.normal(seed, B, T, common.WIDTH)


@pytest.mark.parametrize("name", ["pope", "cope", "kv_shift"])
def test_with_strict_promotion_of_types(name):
    sides = [jax.ShapeDtypeStruct(WEIGHTS_BTHC.shape, jnp.bfloat16)] * 3
    with jax.numpy_dtype_promotion("strict"):
        here = common.outline(name).at(POSITIONS)
        jax.eval_shape(posenc_jax.attend, here, *sides, x=residual(0))


@pytest.mark.parametrize("name", ["pope", "inkling"])
def test_under_vmap(name):
    """An ensemble has two sets of parameters and two inputs."""
    ensemble = [common.build(name, seed=seed) for seed in (0, 1)]
    inputs = np.stack([residual(seed) for seed in (0, 1)])
    stacked = jax.tree.map(lambda *p: np.stack(p), *ensemble)
    run = jax.jit(jax.vmap(common.attention.__wrapped__, in_axes=(0, 0, None)))
    for one, *member in zip(run(stacked, inputs, POSITIONS), ensemble, inputs, strict=True):
        close_trees(one, common.attention(*member, POSITIONS), 1e-5, 1e-5)


def attention(encoding, x_BTD, positions, implementation="dense"):
    """Runs attention; where it is dense, it can be differentiated forwards, and more than once."""
    here = encoding.at(positions, SEGMENT_IDS)
    x_BTD = here.embed(x_BTD)
    sides = (jnp.einsum("btd,dhc->bthc", x_BTD, w) for w in common.projections())
    return posenc_jax.attend(here, *sides, x=x_BTD, implementation=implementation)


@pytest.mark.parametrize("name", ["alibi", "deberta", "stick_breaking"])
def test_dense_attention_twice(name):
    """The second derivative, forward over reverse, is that of the reverse over the reverse."""
    encoding = common.build(name)
    point, direction = (encoding, residual(10)), residual(20)
    direction = common.moved(jax.tree.map(jnp.zeros_like, encoding), 1, by=1.0), direction

    def inner(tree):
        pairs = zip(*map(jax.tree.leaves, (tree, direction)), strict=True)
        return sum((a * b).sum() for a, b in pairs)

    def loss(encoding, x_BTD):
        return (attention(encoding, x_BTD, POSITIONS) ** 2 * WEIGHTS_BTHC).sum()

    @jax.jit
    def twice(point):
        gradient = jax.grad(loss, argnums=(0, 1))
        forward = jax.jvp(gradient, point, direction)
        return *forward, jax.grad(lambda *p: inner(gradient(*p)), argnums=(0, 1))(*point)

    _, forward, reverse = twice(point)
    close_trees(forward, reverse, rtol=1e-3, atol=1e-3)


# The axes of positions of schemes whose gradient is compared with a small step.
SMOOTH = dict.fromkeys(["sinusoidal", "dual_chunk", "logn", "prope"], 1)
SMOOTH |= dict.fromkeys(["alibi", "kerple_log", "fire"], 1)
SMOOTH |= {"axial_rope": 2, "learned_2d": 2, "alibi_2d": 2, "time_rope": 3}


@functools.partial(jax.jit, static_argnames="implementation")
def loss_and_gradient(encoding, positions, implementation="dense"):
    def loss(positions):
        out = attention(encoding, residual(10), positions, implementation)
        return (out * WEIGHTS_BTHC).sum()

    return jax.value_and_grad(loss)(positions)


@pytest.mark.parametrize("name", SMOOTH)
def test_gradient_by_positions_that_repeat(name):
    """It is a number, also where a distance is 0, and small steps give the same."""
    encoding = common.build(name, **{"out_of_range": "interpolate"} if "learned" in name else {})
    axes = SMOOTH[name]
    positions = np.random.default_rng(0).uniform(0.05, 4.5, (B, T, axes)).astype(np.float32)
    positions[:, 3] = positions[:, 1]
    positions = positions if axes > 1 else 3 * positions[..., 0]
    tangent = common.normal(7, *positions.shape)
    tangent[:, 3] = tangent[:, 1]
    slope = (loss_and_gradient(encoding, positions)[1] * tangent).sum()
    ends = (loss_and_gradient(encoding, positions + n * tangent)[0] for n in (1e-2, -1e-2))
    common.close(np.subtract(*ends) / 2e-2, slope, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("name", ["rerope", "swin_v2", "deberta", "inkling", "fire"])
def test_gradient_by_positions_is_a_number_where_they_repeat_in_tiles_too(name):
    encoding, positions = common.build(name), np.float32([[1, 1, 3, 4, 4], [2, 0, 2, 5, 2]])
    dense, tiled = (
        loss_and_gradient(encoding, positions, way)[1] for way in ("dense", "blockwise")
    )
    assert np.isfinite(dense).all()
    common.close(tiled, dense)
