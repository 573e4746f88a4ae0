"""Arguments that no program can mean are refused with a sentence that names them."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import posenc_jax

ROPE = posenc_jax.make("rope", head_dim=16)
Q_BTHC = jnp.ones((1, 4, 2, 16))
PLACES = np.arange(4)[None]
MASKED = np.ma.masked_array(PLACES, mask=[[0, 1, 0, 0]])


def model(**changes):
    sizes = dict(vocab_size=32, num_layers=1, num_heads=2, model_dim=32) | changes
    return posenc_jax.Transformer(ROPE, **sizes, rngs=nnx.Rngs(0))


def attend(mask):
    return posenc_jax.attend(ROPE, Q_BTHC, Q_BTHC, Q_BTHC, ROPE.tokens(PLACES), mask=mask)


@pytest.mark.parametrize(
    ("argument", "call"),
    [
        ("inputs", lambda: model()(np.zeros((2, 0), int))),
        ("inputs", lambda: model()(np.zeros((0, 8), int))),
        ("dtype", lambda: model(dtype="int8")),
        ("positions", lambda: ROPE.tokens([[0, 1], [0]])),
        ("positions", lambda: ROPE.tokens(np.full((1, 4), 7e30, np.float32))),
        ("positions", lambda: ROPE.tokens(MASKED)),
        ("segment_ids", lambda: ROPE.tokens(PLACES, MASKED)),
        ("mask", lambda: attend(np.ma.masked_array(np.ones((4, 4), bool), mask=np.eye(4)))),
        ("length", lambda: ROPE.tokens(PLACES, length=1.5)),
        ("length", lambda: ROPE.tokens(PLACES, length=2**30)),
    ],
)
def test_a_call_without_meaning(argument, call):
    with pytest.raises(ValueError, match=argument):
        call()
