"""Schemes under the transformations of JAX: none, other flags, vmap, and forward mode."""

import functools

import common
import jax
import jax.numpy as jnp
import numpy as np
import probe
import pytest
import schemes
from common import close_trees

import posenc_jax

# Those whose gradients by positions other tests compare with small steps, or that read none.
OTHERS = {"sinusoidal", "prope", "alibi", "sandwich"}
KINDS = [name for name in common.one_of_each_kind() if schemes.ALL[name].reads_positions]
few_kinds = pytest.mark.parametrize("name", common.one_of_each_kind()[::5])

B, T = 2, 5
POSITIONS = np.array([[0, 1, 3, 4, 9], [2, 0, 1, 5, 4]], np.int32)
SEGMENT_IDS = np.array([[0, 0, 0, 1, 1], [0, 1, 1, 1, 1]], np.int32)


@pytest.mark.parametrize("name", common.one_of_each_kind()[2::8])
def test_with_the_flags_that_users_have(name):
    """Programs of users are optimised, those of the tests are not (conftest.py)."""
    run = functools.partial(probe.documents, name)
    usual = jax.jit(run, compiler_options=common.USUAL_FLAGS)
    encoding, arguments = common.build(name), probe.arguments()
    close_trees(usual(encoding, *arguments), jax.jit(run)(encoding, *arguments))


@few_kinds
def test_without_jit(name):
    encoding, x_BTD = common.build(name), jnp.asarray(probe.RESIDUAL[:, :T])
    results = common.attention.__wrapped__(encoding, x_BTD, POSITIONS, SEGMENT_IDS)
    close_trees(results, common.attention(encoding, x_BTD, POSITIONS, SEGMENT_IDS), 1e-5, 1e-5)


@pytest.mark.parametrize("name", ["pope", "cope", "kv_shift"])
def test_with_strict_promotion_of_types(name):
    with jax.numpy_dtype_promotion("strict"):
        encoding = common.build(name)
        sides = (jnp.ones((B, T, common.HEADS, common.HEAD_DIM), jnp.bfloat16) for _ in range(3))
        x_BTD = jnp.ones((B, T, common.WIDTH))
        posenc_jax.attend(encoding, *sides, encoding.tokens(POSITIONS), x=x_BTD)


@few_kinds
def test_under_vmap(name):
    """An ensemble has two sets of parameters and two inputs."""
    ensemble = [common.build(name, seed=seed) for seed in (0, 1)]
    inputs = [0.5 * common.normal(seed, B, T, common.WIDTH) for seed in (0, 1)]
    stacked = jax.tree.map(lambda *p: np.stack(p), *ensemble)
    run = jax.jit(jax.vmap(common.attention.__wrapped__, in_axes=(0, 0, None)))
    for one, *member in zip(
        run(stacked, np.stack(inputs), POSITIONS), ensemble, inputs, strict=True
    ):
        close_trees(one, common.attention(*member, POSITIONS), 1e-5, 1e-5)


def inputs(seed: int):
    """Returns a layer's input ``[B, T, D]``, and queries, keys and values ``[B, T, H, C]``."""
    heads = B, T, common.HEADS, common.HEAD_DIM
    shapes = (B, T, common.WIDTH), heads, heads, heads
    return tuple(0.5 * common.normal(seed + i, *shape) for i, shape in enumerate(shapes))


def attention(encoding, given, positions):
    """Runs dense attention, which can be differentiated forwards, and more than once."""
    x_BTD, q, k, v = given
    tokens = encoding.tokens(positions, SEGMENT_IDS)
    tokens = tokens.observed(encoding, encoding.embed(x_BTD, tokens))
    return posenc_jax.attend(encoding, q, k, v, tokens, implementation="dense")


@few_kinds
def test_dense_attention_twice(name):
    """The second derivative, forward over reverse, is that of the reverse over the reverse."""
    encoding = common.build(name)
    point, direction = (encoding, inputs(10)), inputs(20)
    direction = common.moved(jax.tree.map(jnp.zeros_like, encoding), 1, by=1.0), direction
    weights_BTHC = common.normal(30, B, T, common.HEADS, common.HEAD_DIM)

    def inner(tree):
        pairs = zip(*map(jax.tree.leaves, (tree, direction)), strict=True)
        return sum((a * b).sum() for a, b in pairs)

    def loss(encoding, given):
        return (attention(encoding, given, POSITIONS) ** 2 * weights_BTHC).sum()

    @jax.jit
    def twice(point):
        gradient = jax.grad(loss, argnums=(0, 1))
        forward = jax.jvp(gradient, point, direction)
        return *forward, jax.grad(lambda *p: inner(gradient(*p)), argnums=(0, 1))(*point)

    _, forward, reverse = twice(point)
    close_trees(forward, reverse, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", [name for name in KINDS if name not in OTHERS])
def test_gradient_by_positions_that_repeat(name):
    """The gradient is a number, also where a distance is 0, and forward mode gives the same."""
    encoding, given = common.build(name), inputs(10)
    positions = np.float32([[1, 1, 3, 4, 4], [2, 0, 2, 5, 2]])
    tangent, weights_BTHC = common.normal(7, B, T), common.normal(30, *given[1].shape)

    def loss(encoding, given, positions):
        return (attention(encoding, given, positions) * weights_BTHC).sum()

    point = encoding, given, positions
    direction = jax.tree.map(lambda x: 0.1 * jnp.cos(jnp.arange(x.size)).reshape(x.shape), point)
    direction = *direction[:2], tangent

    @jax.jit
    def both(*point):
        return jax.grad(loss, argnums=(0, 1, 2))(*point), jax.jvp(loss, point, direction)[1]

    gradient, slope = both(*point)
    assert np.isfinite(gradient[2]).all()
    pairs = zip(*map(jax.tree.leaves, (gradient, direction)), strict=True)
    common.close(slope, sum((a * b).sum() for a, b in pairs), rtol=1e-3, atol=1e-3)
