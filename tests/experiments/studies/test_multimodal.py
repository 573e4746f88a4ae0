"""Tests what multimodal experiments share: the model, and the weights that are read from it."""

import common
import numpy as np
from flax import nnx

from experiments.evaluation.layer_attention import watch, weights
from experiments.studies.multimodal.model import Decoder
from posenc_jax.positions import text

T, PATCH_DIM = 6, 5
SIZES = dict(model_dim=common.WIDTH, num_layers=2, num_heads=common.HEADS, mlp_dim=16)


def close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


def test_the_decoder_mixes_tokens_and_patches():
    sizes = SIZES | {"vocab_size": 7, "patch_dim": PATCH_DIM}
    model = Decoder(common.build("rope"), rngs=nnx.Rngs(0), **sizes)
    assert model.causal
    tokens = np.arange(T)[None] % 7
    values = common.normal(1, 1, T, PATCH_DIM)
    is_patch = np.array([[False, True, True, False, True, False]])
    x_TD = np.asarray(model.embed({"tokens": tokens, "patches": values, "is_patch": is_patch}))[0]
    table, matrix = np.asarray(model.embedding[...]), np.asarray(model.from_patch.kernel[...])
    for i in range(T):
        close(x_TD[i], values[0, i] @ matrix if is_patch[0, i] else table[tokens[0, i]])


def test_attention_weights_are_those_of_the_model():
    """The model's output is put together by hand with the weights."""
    model = common.build_model("sinusoidal")
    tokens = np.random.default_rng(0).integers(0, common.VOCAB, (2, T))
    by_layer = list(map(np.asarray, watch(model, weights, tokens, text(T))))
    close(by_layer[0].sum(axis=-1), np.ones((2, common.HEADS, T)))
    (encoding,) = model.distinct()
    x_BTD = encoding.at(text(T)).embed(model.embed(tokens))
    for layer, weights_BHTS in zip(model.layers, by_layer, strict=True):
        block = layer.block
        v_BTHC = block.attention.v(block.attention_norm(x_BTD)).reshape(2, T, common.HEADS, -1)
        out = np.einsum("bhts,bshc->bthc", weights_BHTS, v_BTHC)
        x_BTD = x_BTD + block.attention.out(out.reshape(2, T, -1))
        x_BTD = x_BTD + block.mlp(block.mlp_norm(x_BTD))
    close(model.final_norm(x_BTD), model.hidden(tokens, text(T)))
