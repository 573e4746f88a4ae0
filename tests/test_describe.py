"""Parameter and operation counts, and the logits one looks at a scheme with."""

import common
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import posenc_jax
from posenc_jax.rotary.positions import text

SIZES = dict(num_heads=common.HEADS, head_dim=common.HEAD_DIM, length=64)


@pytest.mark.parametrize("name", common.SCHEMES)
def test_every_scheme_is_described(name):
    encoding = common.build(name)
    found = posenc_jax.describe(encoding, **SIZES)
    assert found.parameters == sum(p.size for p in jax.tree.leaves(encoding))
    assert (found.flops > found.flops_nope) == (name != "nope")
    assert bool(found.hooks) == (name != "nope")
    assert type(encoding).__name__ in str(found)


def test_operations_of_alibi_by_hand():
    """Two products of 64 tokens and 8 channels, and for each logit of 4 heads what is added."""
    found = posenc_jax.describe(common.build("alibi"), **SIZES)
    pairs = 64 * 64
    assert found.flops_nope > 4 * 2 * 2 * pairs * 8
    # A product and a difference a head; a distance, its cast and its absolute value for them all.
    assert found.flops - found.flops_nope == pytest.approx(pairs * (4 * 2 + 3), rel=0.01)


def test_logits_are_what_softmax_sees():
    encoding = common.build("t5")
    q, k, v = (common.normal(seed, 2, 9, common.HEADS, common.HEAD_DIM) for seed in range(3))
    tokens = posenc_jax.Tokens.of(encoding, text(9))
    seen = posenc_jax.logits(encoding, q, k, tokens)
    assert seen.shape == (2, common.HEADS, 9, 9) and seen.dtype == jnp.float32
    weights = jax.nn.softmax(jnp.where(np.tri(9, dtype=bool), seen, -jnp.inf))
    expected = jnp.einsum("bhts,bshc->bthc", weights, v)
    actual = posenc_jax.attend(encoding, q, k, v, tokens)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)
