"""Weights of one's own, made of ``logits``, are summed as ``attend`` sums its own."""

import common
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from calls import B, H, T, read, sides

import posenc_jax
from posenc_jax.positions import text

SHOWN = np.random.default_rng(0).random((B, H, T, T)) < 0.6
SHOWN[:, :, np.arange(T), np.arange(T)] = True


@jax.jit
def combined_and_usual(encoding, q, k, v):
    """Returns attention with a mask and a softmax of one's own, and that of ``attend``."""
    tokens = read(encoding)
    shown = SHOWN & np.tri(T, dtype=bool)
    logits = posenc_jax.logits(encoding, q, k, tokens)
    weights = jax.nn.softmax(jnp.where(shown, logits, -jnp.inf))
    combined = posenc_jax.combine(encoding, weights, v, tokens)
    return combined, posenc_jax.attend(encoding, q, k, v, tokens, mask=SHOWN)


@pytest.mark.parametrize("name", common.one_of_each_tile()[::4])
def test_a_softmax_of_ones_own(name):
    combined, usual = combined_and_usual(common.build(name, num_kv_heads=2), *sides(num_kv_heads=2))
    np.testing.assert_allclose(combined, usual, atol=2e-5)


def test_a_part_of_the_queries_and_some_of_the_heads():
    encoding, (q, k, v) = common.build("shaw"), sides()
    tokens = encoding.tokens(text(T))
    part = tokens.part(T - 2, 2)
    k_rotated, v_rotated, _ = posenc_jax.rotate_keys(encoding, k, v, tokens, num_heads=H)
    shard = posenc_jax.HeadShard(encoding, jnp.array([2, 3]), H)
    half = (x[:, :, 2:] for x in (q[:, -2:], k_rotated, v_rotated))
    q, k, v = half
    logits = posenc_jax.logits(shard, q, k, part, tokens.rotated())
    shown = np.tri(T, dtype=bool)[-2:]
    weights = jax.nn.softmax(jnp.where(shown[None, None], logits, -jnp.inf))
    combined = posenc_jax.combine(shard, weights, v, part, tokens.rotated())
    usual = posenc_jax.attend(shard, q, k, v, part, tokens.rotated())
    np.testing.assert_allclose(combined, usual, atol=2e-5)
