"""Arguments that no program can mean are refused with a sentence that names them."""

import numpy as np
import pytest
from flax import nnx

import posenc_jax

ROPE = posenc_jax.make("rope", head_dim=16)
PLACES = np.arange(4)[None]


def model():
    sizes = dict(vocab_size=32, num_layers=1, num_heads=2, model_dim=32)
    return posenc_jax.Transformer(ROPE, **sizes, rngs=nnx.Rngs(0))


@pytest.mark.parametrize(
    ("argument", "call"),
    [
        ("inputs", lambda: model()(np.zeros((2, 0), int))),
        ("inputs", lambda: model()(np.zeros((0, 8), int))),
        ("positions", lambda: ROPE.tokens(np.full((1, 4), 7e30, np.float32))),
        ("length", lambda: ROPE.tokens(PLACES, length=1.5)),
        ("length", lambda: ROPE.tokens(PLACES, length=2**30)),
    ],
)
def test_a_call_without_meaning(argument, call):
    with pytest.raises(ValueError, match=argument):
        call()
