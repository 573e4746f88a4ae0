"""Compares logit scales and patterns of layers with other people's code."""

import dataclasses

import common
import jax.numpy as jnp
import numpy as np
from golden_checks import ONE_HEAD, close

import posenc_jax


def test_llama4_temperature():
    arrays, params = common.golden("llama4_attn_temperature")
    encoding = posenc_jax.make("llama4_temperature", **params)
    for positions in (arrays["positions"].astype(np.int32), arrays["positions"].astype(np.float32)):
        tokens = posenc_jax.Tokens.of(encoding, positions[None])
        ones = jnp.ones((1, len(positions), 1, 2))
        scaled = encoding.rotate(ones, tokens, ONE_HEAD)
        close(scaled[0, :, 0], np.repeat(arrays["q_scale"][:, None], 2, axis=1), rtol=1e-6)
        keys = dataclasses.replace(ONE_HEAD, is_query=False)
        close(encoding.rotate(ones, tokens, keys), ones, rtol=0, atol=0)


def test_irope_layer_pattern():
    arrays, params = common.golden("irope_layer_pattern")
    layers = posenc_jax.make("irope", head_dim=common.HEAD_DIM, interval=params["interval"])
    layers.check(params["layers"])
    turns = params["layers"] // len(layers.pattern)
    rotates = [
        isinstance(layers.distinct[which], type(common.build("rope"))) for which in layers.pattern
    ]
    for name in ("llama4_use_rope", "smollm3_use_rope"):
        assert rotates * turns == arrays[name].astype(bool).tolist()
