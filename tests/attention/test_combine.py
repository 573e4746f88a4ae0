"""Weights of one's own, made of ``logits``, are summed as ``attend`` sums its own."""

import common
import jax
import jax.numpy as jnp
import numpy as np
from calls import H, T, sides

import posenc_jax
from posenc_jax.positions import text


def test_a_part_of_the_queries_and_some_of_the_heads():
    encoding, (q, k, v) = common.build("shaw"), sides()
    tokens = encoding.tokens(text(T))
    part = tokens.part(T - 2, 2)
    k_rotated, v_rotated, _ = posenc_jax.rotate_keys(encoding, k, v, tokens, num_heads=H)
    shard = posenc_jax.HeadShard(encoding, [2, 3], H)
    half = (x[:, :, 2:] for x in (q[:, -2:], k_rotated, v_rotated))
    q, k, v = half
    logits = posenc_jax.logits(shard, q, k, part, tokens.rotated())
    shown = np.tri(T, dtype=bool)[-2:]
    weights = jax.nn.softmax(jnp.where(shown[None, None], logits, -jnp.inf))
    combined = posenc_jax.combine(shard, weights, v, part, tokens.rotated())
    usual = posenc_jax.attend(shard, q, k, v, part, tokens.rotated())
    np.testing.assert_allclose(combined, usual, atol=2e-5)
