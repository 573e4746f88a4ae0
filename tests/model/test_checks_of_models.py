"""Mistakes in models and in what is called with them are refused by the name of the argument."""

import functools

import common
import numpy as np
import pytest
from common import refuses
from flax import nnx

import posenc_jax
from posenc_jax.positions import text

B, T, H = 2, 6, common.HEADS
IDS = np.ones((B, T), np.int32)


MODEL = common.build_model("rope")
SIZES = dict(vocab_size=8, model_dim=32, num_layers=1, num_heads=H, rngs=nnx.Rngs(0))


def model(**bad):
    return functools.partial(posenc_jax.Transformer, posenc_jax.Encoding(), **SIZES | bad)


class OwnGate(posenc_jax.Encoding):
    """Has a parameter for each layer, and is not in the registry."""

    per_layer = True

    def __init__(self):
        self.rate = nnx.Param(np.ones(H))

    def score(self, logits_BHTS, tile):
        return logits_BHTS - tile.per_head(self.rate)


MODELS = {
    "num_layers=1.*REGISTRY": [lambda: posenc_jax.Transformer(OwnGate(), **SIZES)],
    "num_layers=2": [lambda: common.build_model(common.build("transformer_xl", num_layers=3))],
    "pattern": [
        lambda: common.build_model([common.build("rope")] * 3, num_layers=4),
        lambda: MODEL.under([common.build("rope")] * 3),
    ],
    "num_kv_heads": [model(num_kv_heads=3)],
    "num_heads": [model(num_heads=5)],
    "qk_norm": [model(qk_norm="heads")],
    "implementation": [model(implementation="flash")],
    "encodings|Encoding": [lambda: MODEL.under("rope")],
    "window": [lambda: posenc_jax.Layers([common.build("rope")], [3, 4])],
    "layer": [lambda: common.build("fox", num_layers=2).of_layer(2)],
    "inputs": [
        lambda bad=bad: MODEL(bad, text(T))
        for bad in (np.ones((B, T)), np.ones(T, int), IDS + common.VOCAB, IDS[:, :0], IDS[:0])
    ],
}


@pytest.mark.parametrize("name", MODELS)
def test_models(name):
    for call in MODELS[name]:
        refuses(name, call)
