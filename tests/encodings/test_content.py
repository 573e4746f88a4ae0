"""Tests promises of single schemes, among those in which content and distance meet."""

import common
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import posenc_jax
from posenc_jax.encodings.content import path
from posenc_jax.positions import text

T, H, C = 12, common.HEADS, common.HEAD_DIM


def inputs(num_kv_heads=H):
    heads = (H, num_kv_heads, num_kv_heads)
    return [jnp.asarray(common.normal(seed, 1, T, n, C)) for seed, n in enumerate(heads)]


def test_cope_under_a_window_counts_what_the_window_shows():
    encoding = common.build("cope")
    q, k, v = inputs()
    tokens = encoding.tokens(text(T))
    windowed = posenc_jax.attend(encoding, q, k, v, tokens, window=5)
    last = slice(T - 5, T)
    near = tokens.part(T - 5, 5)
    alone = posenc_jax.attend(encoding, q[:, last], k[:, last], v[:, last], near)
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
        tokens = encoding.tokens(text(T), segment_ids, index=order[None])
        tokens = tokens.observed(encoding, x_BTD)
        out = posenc_jax.attend(encoding, q, k, v, tokens)
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


def test_schemes_start_as_published():
    """CoPE starts at zero, which is NoPE; Shaw within Xavier's bound; DAPE within PyTorch's."""
    cope = common.build("cope", trained=False)
    tokens = cope.tokens(text(T))
    same = posenc_jax.attend(common.build("nope"), *inputs(), tokens)
    np.testing.assert_allclose(posenc_jax.attend(cope, *inputs(), tokens), same, atol=1e-6)
    shaw = common.build("shaw", trained=False)
    assert 0.9 < np.abs(shaw.keys[...]).max() / np.sqrt(6 / (33 + C)) <= 1
    dape = common.build("dape", trained=False)
    assert 0.9 < np.abs(dape.of_logit[...]).max() * np.sqrt(2 * H) <= 1
    assert 0.9 < np.abs(dape.out[...]).max() * np.sqrt(32) <= 1
