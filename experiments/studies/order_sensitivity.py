"""Measures whether the outputs of a model depend on the order of its tokens."""

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from experiments.config import make_encoding, short_keywords
from experiments.results.statistics import BASELINE, Study
from posenc_jax import Transformer, positions
from posenc_jax.registry import own_keywords

_MODEL: dict[str, Any] = {"model_dim": 32, "num_layers": 2, "num_heads": 4}
# Some schemes have no frequency or no cell of a grid at fewer tokens.
_TRAIN_LENGTH = 16
# Keywords of schemes for attention in both directions, and for patterns over two layers.
_KEYWORDS = {"bidirectional": True, "interval": 2}
_NOISE = 0.3
# Outputs that are no farther apart than this, over their size, are the same but for rounding.
BLIND = 1e-5


def order_study(schemes: Iterable[str], seeds: int) -> Study:
    """Compares the outputs of three tokens, 我爱你, with those of the same tokens reversed.

    A record has ``scheme, seed, causal, distance``: the largest change of a token's output, over
    the size of that output. It is 0 if the outputs are the same set but for rounding, and else has
    two digits, because further ones differ between processors. Nothing is trained, but noise is
    added to the parameters of encodings, for several start at 0, where they do nothing yet.
    """
    wanted = [(BASELINE, True), (BASELINE, False), *((scheme, False) for scheme in schemes)]
    records = [
        {
            "scheme": scheme,
            "seed": seed,
            "causal": causal,
            "distance": _distance(scheme, causal, seed),
        }
        for scheme, causal in wanted
        for seed in range(seeds)
    ]
    return Study(records, [], [], {})


def _distance(scheme: str, causal: bool, seed: int) -> float:
    rngs = nnx.Rngs(seed)
    own = {key: value for key, value in _KEYWORDS.items() if key in own_keywords(scheme)}
    own |= {"name": scheme} | short_keywords(_TRAIN_LENGTH).get(scheme, {})
    encoding = _with_noise(make_encoding(own, _MODEL, _TRAIN_LENGTH, rngs), rngs)
    model = Transformer(encoding, vocab_size=3, **_MODEL, causal=causal, rngs=rngs)
    # The outputs of the same three tokens, in the same order.
    one_TD, other_TD = _outputs(model, jnp.array([[0, 1, 2], [2, 1, 0]]))
    other_TD = other_TD[::-1]
    changes_T = jnp.linalg.norm(one_TD - other_TD, axis=-1) / jnp.linalg.norm(one_TD, axis=-1)
    distance = float(changes_T.max())
    return float(f"{distance:.1e}") if distance > BLIND else 0.0


@jax.jit
def _outputs(model, said_BT):
    return model.hidden(said_BT, positions.text(said_BT.shape[1]))


def _with_noise(encoding, rngs):
    """Returns an encoding with normal noise added to its parameters."""

    def moved(p):
        return p + _NOISE * jax.random.normal(rngs(), p.shape, p.dtype)

    return jax.tree.map(moved, encoding)
