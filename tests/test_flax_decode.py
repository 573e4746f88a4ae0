"""Decoding with the caches of Flax's own attention layers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

import posenc_jax
from posenc_jax.positions import text

B, T, H, D = 2, 6, 4, 32
NAMES = ["rope", "alibi", "t5", "nope"]


def encoding_of(name):
    sizes = dict(num_heads=H, head_dim=D // H, model_dim=D, train_length=T)
    return posenc_jax.make(name, rngs=nnx.Rngs(0), **sizes)


def inputs():
    return jnp.asarray(np.random.default_rng(0).standard_normal((B, T, D)), jnp.float32)


@pytest.mark.parametrize("name", NAMES)
def test_nnx_layer_decodes_what_it_computes_at_once(name):
    layer = nnx.MultiHeadAttention(
        num_heads=H,
        in_features=D,
        decode=False,
        attention_fn=posenc_jax.attention_fn(encoding_of(name), text(T)),
        rngs=nnx.Rngs(0),
    )
    whole = layer(inputs())
    layer.init_cache((B, T, D))
    steps = [layer(inputs()[:, t : t + 1], decode=True) for t in range(T)]
    np.testing.assert_allclose(jnp.concatenate(steps, axis=1), whole, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_linen_layer_decodes_what_it_computes_at_once(name):
    function = posenc_jax.attention_fn(encoding_of(name), text(T))
    layer = nn.MultiHeadDotProductAttention(num_heads=H, attention_fn=function)
    variables = layer.init(jax.random.key(0), inputs())
    whole = layer.apply(variables, inputs())
    decoder = nn.MultiHeadDotProductAttention(num_heads=H, attention_fn=function, decode=True)
    cache = decoder.init(jax.random.key(0), inputs())["cache"]
    steps = []
    for t in range(T):
        step, state = decoder.apply(
            {**variables, "cache": cache}, inputs()[:, t : t + 1], mutable="cache"
        )
        cache = state["cache"]
        steps.append(step)
    np.testing.assert_allclose(jnp.concatenate(steps, axis=1), whole, atol=1e-5)


def test_another_mask_than_the_caches_gives_nan():
    function = posenc_jax.attention_fn(encoding_of("rope"), text(T))
    q, k = jnp.ones((B, 1, H, D // H)), jnp.ones((B, T, H, D // H))
    holes = jnp.array([True, False, True, False, False, False])[None, None, None]
    assert jnp.isnan(function(q, k, k, mask=holes)).all()


def test_schemes_that_read_the_input_are_refused():
    encoding = encoding_of("fox")
    function = posenc_jax.attention_fn(encoding, text(T), x=inputs())
    q, k = jnp.ones((B, 1, H, D // H)), jnp.ones((B, T, H, D // H))
    with pytest.raises(ValueError, match=r"ForgettingTransformer|FoX reads the inputs of all"):
        function(q, k, k, mask=jnp.ones((B, 1, 1, T), bool))


@pytest.mark.parametrize("name", ["sinusoidal", "learned"])
def test_schemes_that_add_to_the_embeddings_are_refused(name):
    with pytest.raises(ValueError, match=r"adds to the token embeddings.*encoding\.embed"):
        posenc_jax.attention_fn(encoding_of(name), text(T))
