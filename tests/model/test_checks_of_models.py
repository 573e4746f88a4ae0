"""Mistakes in models and in what is called with them are refused by the name of the argument."""

import functools

import common
import jax.numpy as jnp
import numpy as np
import pytest
from common import refuses
from flax import nnx

import posenc_jax
from posenc_jax.positions import text

B, T, H = 2, 6, common.HEADS
X_BTD, IDS = jnp.ones((B, T, common.WIDTH)), np.ones((B, T), np.int32)


MODEL = common.build_model("rope")
SIZES = dict(vocab_size=8, model_dim=32, num_layers=1, num_heads=H, rngs=nnx.Rngs(0))


def model(**bad):
    return functools.partial(posenc_jax.Transformer, posenc_jax.Encoding(), **SIZES | bad)


def losses(x=X_BTD, table=X_BTD[0], targets=IDS, **options):
    return functools.partial(posenc_jax.cross_entropy, x, table, targets, **options)


MODELS = {
    "num_layers=2": [lambda: common.build_model(common.build("transformer_xl", num_layers=3))],
    "pattern": [
        lambda: common.build_model([common.build("rope")] * 3, num_layers=4),
        lambda: common.build_model([]),
        lambda: MODEL.under([common.build("rope")] * 3),
    ],
    "num_kv_heads": [model(num_kv_heads=3)],
    "num_heads": [model(num_heads=5)],
    "rngs": [model(rngs=0)],
    "sinks": [model(sinks=3), model(sinks="heads")],
    "qk_norm": [model(qk_norm="heads")],
    "implementation": [model(implementation="flash")],
    "encodings|Encoding": [
        *(lambda bad=bad: MODEL.under(bad) for bad in ("rope", posenc_jax.Encoding, ["rope"])),
        lambda: posenc_jax.Layers(common.build("rope")),
    ],
    "window": [
        lambda bad=bad: posenc_jax.Layers([common.build("rope")], bad) for bad in (3, [0], [3, 4])
    ],
    "layer": [lambda bad=bad: common.build("fox", num_layers=2).of_layer(bad) for bad in (2, -1)],
    "number": [lambda bad=bad: MODEL.layer_at(bad) for bad in (9, -1)],
    "inputs": [
        lambda bad=bad: MODEL(bad, text(T))
        for bad in (np.ones((B, T)), np.ones(T, int), IDS + common.VOCAB, IDS - 2)
    ],
    "table": [losses(table=jnp.float32(1))],
    "chunk": [losses(chunk=0)],
}


@pytest.mark.parametrize("name", MODELS)
def test_models(name):
    for call in MODELS[name]:
        refuses(name, call)
