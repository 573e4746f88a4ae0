"""Tests promises of single schemes, among those in which content and distance meet."""

import functools

import common
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attention_cases import close_gradients, sides

import posenc_jax
from posenc_jax.attention.blockwise import blockwise
from posenc_jax.encodings.content import path
from posenc_jax.positions import text

T, H, C = 12, common.HEADS, common.HEAD_DIM


def inputs(num_kv_heads=H):
    heads = (H, num_kv_heads, num_kv_heads)
    return [jnp.asarray(common.normal(seed, 1, T, n, C)) for seed, n in enumerate(heads)]


def test_cope_under_a_window_counts_what_the_window_shows():
    encoding = common.build("cope")
    q, k, v = inputs()
    here = encoding.at(text(T))
    windowed = posenc_jax.attend(here, q, k, v, window=5)
    last = slice(T - 5, T)
    near = here.part(T - 5, 5)
    alone = posenc_jax.attend(near, q[:, last], k[:, last], v[:, last])
    common.close(windowed[:, -1], alone[:, -1])


@pytest.mark.slow
@pytest.mark.parametrize("is_written", [True, False])
def test_path_in_blocks(monkeypatch, is_written):
    """Blocks of keys give what one block gives, also if the last block is not full.

    Blocks of 1 and 3 keys are solved once for all queries, larger ones for each query.
    """
    encoding = common.build("path", num_kv_heads=2, forget_gate=True)
    x_BTD = jnp.asarray(common.normal(3, 1, T, common.WIDTH))
    order = np.arange(T) if is_written else np.random.default_rng(0).permutation(T)
    segment_ids = np.array([[0, 1, 1, 0, 0, 1, 0, 1, 1, 1, 0, 0]])

    def loss(encoding, q, k, v):
        here = encoding.at(text(T), segment_ids, index=order[None])
        here = here.see(x_BTD)[0]
        out = posenc_jax.attend(here, q, k, v)
        return (out**2).sum(), out

    def results(block):
        monkeypatch.setattr(path, "BLOCK", block)
        run = jax.value_and_grad(lambda *x: loss(*x), argnums=(0, 1, 2, 3), has_aux=True)
        return jax.jit(run)(encoding, *inputs(2))

    in_one = results(64)
    for block in (1, 3, 5):
        pairs = zip(jax.tree.leaves(results(block)), jax.tree.leaves(in_one), strict=True)
        for actual, expected in pairs:
            common.close(actual, expected, rtol=1e-4)


# The band of distances that Inkling's bias acts in, and tiles beyond it


LONG = 64  # two pieces of the band


def attention(implementation, positions, encoding, *sides):
    """Returns a loss, and the logits' softmax times the values."""
    x_BTD = 0.5 * common.normal(3, 2, LONG, common.WIDTH)
    here = encoding.at(positions).see(jnp.asarray(x_BTD))[0]
    out = posenc_jax.attend(here, *sides, implementation=implementation)
    return (out**2).sum(), out


@pytest.mark.slow
def test_text_in_tiles_and_at_once():
    """A band along the diagonals, in tiles near and far, gives what distances one by one give."""
    encoding = common.build("inkling", extent=7, log_floor=5, num_kv_heads=2)

    @functools.partial(jax.jit, static_argnums=0)
    def gradients(implementation, *arguments):
        ways = text(LONG), jnp.asarray(text(LONG))  # known to be consecutive, and not
        runs = [functools.partial(attention, implementation, item) for item in ways]
        return [jax.grad(run, argnums=range(4), has_aux=True)(*arguments) for run in runs]

    band, expected = gradients("dense", encoding, *sides(2, LONG, LONG))
    close_gradients(band, expected)
    for block in (12, 32):
        tiled = functools.partial(blockwise, block=block)
        for actual in gradients(tiled, encoding, *sides(2, LONG, LONG)):
            close_gradients(actual, expected)
