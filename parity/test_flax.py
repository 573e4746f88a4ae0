"""Runs the cases of Flax's own tests of attention, with our attention in Flax's place.

The shapes are those of ``tests/nnx/nn/attention_test.py`` and
``tests/linen/linen_attention_test.py`` of google/flax at 18f8f311, and each test names theirs. What
is expected is what the installed Flax computes; the encoding is the one that does nothing.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

from posenc_jax import Encoding, attend, attention_fn
from posenc_jax.positions import text

ORDINARY = dict(atol=1e-6)


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def ours(q, k, v, *, causal=False, mask=None):
    """Attends from tokens ``[..., T, H, C]`` to the keys of others, ``[..., S, K, C]``."""
    q, k, v = (x.reshape(-1, *x.shape[-3:]) for x in (q, k, v))
    T, S = q.shape[1], k.shape[1]
    here = Encoding().at(text(max(T, S)))
    keys = here.part(0, S).keys(k, v)
    return attend(here.part(0, T), q, keys, causal=causal, mask=mask)


@pytest.mark.parametrize(("is_padded", "S"), [(False, 2), (False, 4), (True, 4)])
def test_causal_and_padded(is_padded, S):
    """NNX, test_causal_mask_equivalence: padding hides the last two keys, also of other tokens."""
    q, k, v = (normal(n, 1, 1, length, 2, 4) for n, length in enumerate((2, S, S)))
    mask = jnp.ones((1, 1, 1, 2, S), bool).at[..., -2:].set(False) if is_padded else None
    causal = jnp.broadcast_to(jnp.tril(jnp.ones((2, S), bool)), (1, 1, 2, 2, S))
    expected = nnx.dot_product_attention(q, k, v, mask=causal if mask is None else causal & mask)
    actual = ours(q, k, v, causal=True, mask=None if mask is None else mask[0])
    np.testing.assert_allclose(actual, expected[0], **ORDINARY)


@pytest.mark.parametrize(("B", "T", "S", "H", "K", "C"), [(2, 4, 5, 6, 3, 8), (2, 8, 8, 4, 2, 16)])
def test_fewer_heads_of_keys(B, T, S, H, K, C):
    """NNX, test_gqa_shapes and test_gqa_parity_with_jax."""
    q, k, v = normal(0, B, T, H, C), normal(1, B, S, K, C), normal(2, B, S, K, C)
    expected = jax.nn.dot_product_attention(q, k, v)
    np.testing.assert_allclose(ours(q, k, v), expected, atol=2e-6)


@pytest.mark.parametrize("shape", [(1, 3), (4, 6, 5)])
@pytest.mark.parametrize("normalize_qk", [True, False])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float16])
@pytest.mark.parametrize("use_bias", [True, False])
def test_layers(use_bias, dtype, normalize_qk, shape):
    """NNX, test_nnx_attention_equivalence, and Linen, test_multihead_self_attention."""
    x = jax.random.normal(jax.random.key(0), shape, dtype)
    settings = dict(num_heads=2, in_features=shape[-1], qkv_features=16, dtype=dtype, decode=False)
    settings |= dict(use_bias=use_bias, normalize_qk=normalize_qk)
    function = attention_fn(Encoding(), text(shape[-2]), causal=False)
    expected = nnx.MultiHeadAttention(**settings, rngs=nnx.Rngs(42))(x)
    actual = nnx.MultiHeadAttention(**settings, attention_fn=function, rngs=nnx.Rngs(42))(x)
    assert actual.dtype == expected.dtype == dtype
    tolerance = 1e-6 if dtype == jnp.float32 else 4e-3
    np.testing.assert_allclose(actual, expected, atol=tolerance)


def test_decoding():
    """Linen, test_decoding: token by token, with Flax's cache, as under a causal mask."""
    x = normal(0, 2, 5, 12)
    settings = dict(num_heads=3, qkv_features=12, precision="highest", deterministic=True)
    layer = linen.MultiHeadDotProductAttention(**settings)
    function = attention_fn(Encoding(), text(5))
    decoder = layer.clone(decode=True, attention_fn=function)
    state = decoder.init(jax.random.key(1), x)
    expected = layer.apply({"params": state["params"]}, x, mask=linen.make_causal_mask(x[..., 0]))
    for number in range(5):
        token = x[:, number : number + 1]
        actual, cache = decoder.apply(state, token, mutable=["cache"])
        state |= cache
        np.testing.assert_allclose(actual[:, 0], expected[:, number], atol=1e-5)
