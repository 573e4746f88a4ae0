"""Runs the cases of Equinox' own tests of attention and rotary embeddings.

The inputs and numbers are those of ``tests/test_nn.py`` of patrick-kidger/equinox at 9336d820; each
test names its function there. Equinox has tokens ``[T, H, C]``, positions from 0, and "half" pairs.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import posenc_jax
from posenc_jax import Encoding, Side, attend
from posenc_jax.positions import text


def rotated(x_THC):
    T, H, C = x_THC.shape
    rope = posenc_jax.make("rope", head_dim=C)
    here = rope.at(text(T))
    return rope.rotate(x_THC[None], here.tokens, Side(None, H, is_query=True))[0]


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float16])
def test_rotation_beside_theirs(dtype):
    """test_rope_embeddings_shapes, with values."""
    theirs = eqx.nn.RotaryPositionalEmbedding(32, dtype=jnp.float32)
    for seed in range(2):
        x_THC = jax.random.normal(jax.random.key(seed), (8, 4, 32), dtype)
        with jax.numpy_dtype_promotion("standard"):
            expected = jax.vmap(theirs, in_axes=1, out_axes=1)(x_THC)
        actual = rotated(x_THC)
        assert actual.dtype == expected.dtype == dtype
        tolerance = 1e-6 if dtype == jnp.float32 else 4e-3
        np.testing.assert_allclose(actual, expected, atol=tolerance)


def test_dot_product_attention():
    """test_dot_product_attention: the weights of two keys are as 1 to e, or the mask decides."""
    q, k, v = ([[0.0, 2**0.5]], [[1.0, 0.0], [0.0, 1.0]], [[1.0], [0.0]])
    q, k, v = (jnp.array(x)[None, :, None] for x in (q, k, v))
    here = Encoding().at(text(2))
    keys = here.keys(k, v)
    for mask, expected in ((None, 1 / (1 + np.e)), ([[True, False]], 1.0)):
        mask = None if mask is None else jnp.array(mask)[None, None]
        out = attend(here.part(0, 1), q, keys, causal=False, mask=mask)
        np.testing.assert_allclose(out, [[[[expected]]]], rtol=1e-6)


def test_weights_of_float16_do_not_exceed_1():
    """test_dot_product_attention_weights: logits 9 and 1; the values pick the weights."""
    q, k = (jnp.array(x, jnp.float16)[None, :, None, None] for x in ([1.0], [9.0, 1.0]))
    here = Encoding().at(text(2))
    keys = here.keys(k, jnp.eye(2, dtype=jnp.float16)[None, :, None])
    weights = attend(here.part(0, 1), q, keys, causal=False)
    assert weights.dtype == jnp.float16 and weights.max() < 1


@pytest.mark.parametrize("length", [1, 3])
def test_multihead_attention(length):
    """test_multihead_attention: kernels of 0 to 15; where all see one key, its value comes out."""
    theirs = eqx.nn.MultiheadAttention(num_heads=2, query_size=4, key=jax.random.key(0))
    kernel = jnp.arange(16.0).reshape(4, 4)
    x_TD = jnp.arange(1.0, 4 * length + 1).reshape(length, 4)
    q, k, v = ((x_TD @ kernel.T).reshape(1, length, 2, 2) for _ in range(3))
    mask = jnp.arange(length) == 0
    out = attend(Encoding().at(text(length)), q, k, v, causal=False, mask=mask[None, None, None])
    actual = out.reshape(length, 4) @ kernel.T
    np.testing.assert_allclose(actual, [[680.0, 1960.0, 3240.0, 4520.0]] * length, rtol=1e-6)
    names = ("query_proj", "key_proj", "value_proj", "output_proj")
    theirs = eqx.tree_at(lambda x: [getattr(x, n).weight for n in names], theirs, [kernel] * 4)
    expected = theirs(x_TD, x_TD, x_TD, jnp.broadcast_to(mask, (length, length)))
    np.testing.assert_allclose(actual, expected, rtol=1e-6)
