"""Tests the band of distances that Inkling's bias acts in, and tiles beyond it."""

import functools

import common
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attention_cases import close_gradients, sides

import posenc_jax
from posenc_jax.attention.blockwise import blockwise
from posenc_jax.model.cache import Cache
from posenc_jax.positions import text

T = 64  # two pieces of the band


def attention(implementation, positions, encoding, *sides):
    """Returns a loss, and the logits' softmax times the values."""
    x_BTD = 0.5 * common.normal(3, 2, T, common.WIDTH)
    tokens = encoding.tokens(positions).observed(encoding, jnp.asarray(x_BTD))
    out = posenc_jax.attend(encoding, *sides, tokens, implementation=implementation)
    return (out**2).sum(), out


@pytest.mark.slow
def test_text_in_tiles_and_at_once():
    """A band along the diagonals, in tiles near and far, gives what distances one by one give."""
    encoding = common.build("inkling", extent=7, log_floor=5, num_kv_heads=2)

    @functools.partial(jax.jit, static_argnums=0)
    def gradients(implementation, *arguments):
        ways = text(T), jnp.asarray(text(T))  # known to be consecutive, and not
        runs = [functools.partial(attention, implementation, item) for item in ways]
        return [jax.grad(run, argnums=range(4), has_aux=True)(*arguments) for run in runs]

    band, expected = gradients("dense", encoding, *sides(2, T, T))
    close_gradients(band, expected)
    for block in (12, 32):
        tiled = functools.partial(blockwise, block=block)
        for actual in gradients(tiled, encoding, *sides(2, T, T)):
            close_gradients(actual, expected)


def test_tiles_beyond_the_extent_are_those_of_no_positions():
    """They are not scored: a profile that is not a number does not reach them."""
    encoding = common.build("inkling", extent=3)
    encoding.profiles[...] = jnp.full_like(encoding.profiles[...], jnp.nan)
    q, k, v = sides(4, T, T)
    tokens = encoding.tokens(text(T)).observed(encoding, jnp.zeros((2, T, common.WIDTH)))
    late, early = tokens.part(20, 44), tokens.part(0, 10)
    attend = functools.partial(posenc_jax.attend, implementation="blockwise")
    far = attend(encoding, q[:, 20:], k[:, :10], v[:, :10], late, early)
    plain = attend(posenc_jax.Encoding(), q[:, 20:], k[:, :10], v[:, :10], late, early)
    np.testing.assert_allclose(far, plain, atol=1e-6)


def test_the_cache_keeps_no_vectors():
    """Only a query's own are read, so that none follow the keys."""
    model = common.build_model("inkling")
    layer = Cache.empty(model, 1, 8).layers[0]
    assert layer.state is not None and layer.made is None and layer.x is None
