"""Measures whether the outputs of a model depend on the order of its tokens."""

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from experiments.config import short_keywords
from experiments.results.statistics import Study
from experiments.training.encodings import make_encoding
from posenc_jax import Transformer, positions
from posenc_jax.registry import own_keywords

# Another order of three tokens, by the two sentences: in the first pair one is the other backwards,
# so that every two tokens are as far apart as before.
ORDERS = {"我爱你 and 你爱我": (2, 1, 0), "不怕辣 and 怕不辣": (1, 0, 2)}
_MODEL: dict[str, Any] = {"model_dim": 32, "num_layers": 2, "num_heads": 4}
# Some schemes have no frequency or no cell of a grid at fewer tokens.
_TRAIN_LENGTH = 16
# Keywords of schemes for attention in both directions, for patterns over two layers, and for gates
# that are half open; they begin so far open, or closed, that they do almost nothing yet.
_KEYWORDS = {"bidirectional": True, "interval": 2, "bias_init": 0.0}
_NOISE = 0.3
# Schemes that are not defined without a causal mask.
CAUSAL = ("stick_breaking",)
# Outputs that are no farther apart than this, over their size, are the same but for rounding.
BLIND = 1e-5


def order_study(schemes: Iterable[str], seeds: int) -> Study:
    """Compares the outputs of three tokens, without a causal mask, with those in another order.

    A record has ``scheme, seed, pair, distance``. ``pair`` is one of ``ORDERS``. See ``distances``.
    """
    records = [
        {"scheme": scheme, "seed": seed, "pair": pair, "distance": distance}
        for scheme in schemes
        for seed in range(seeds)
        for pair, distance in distances(scheme, causal=False, seed=seed).items()
    ]
    return Study(records, [], [], {})


def distances(scheme: str, causal: bool, seed: int) -> dict[str, float]:
    """Returns the largest change of a token's output over the size of that output, by pair.

    A distance is 0 if the outputs are the same set but for rounding, and else has two digits,
    because further ones differ between processors. Nothing is trained, but noise is added to the
    parameters of the encoding, for several start at 0, where they do nothing yet.
    """
    rngs = nnx.Rngs(seed)
    keywords = {key: value for key, value in _KEYWORDS.items() if key in own_keywords(scheme)}
    keywords |= {"name": scheme} | short_keywords(_TRAIN_LENGTH).get(scheme, {})
    encoding = jax.tree.map(
        lambda p: p + _NOISE * jax.random.normal(rngs(), p.shape, p.dtype),
        make_encoding(keywords, _MODEL, _TRAIN_LENGTH, rngs),
    )
    model = Transformer(encoding, vocab_size=3, **_MODEL, causal=causal, rngs=rngs)
    first_TD, *others = _outputs(model, jnp.array([(0, 1, 2), *ORDERS.values()]))
    by_pair = {}
    for (pair, order), other_TD in zip(ORDERS.items(), others, strict=True):
        same_TD = other_TD[np.argsort(order)]  # the outputs of the tokens in their first order
        changes_T = jnp.linalg.norm(first_TD - same_TD, axis=-1)
        distance = float((changes_T / jnp.linalg.norm(first_TD, axis=-1)).max())
        by_pair[pair] = float(f"{distance:.1e}") if distance > BLIND else 0.0
    return by_pair


@jax.jit
def _outputs(model, said_BT):
    return model.hidden(said_BT, positions.text(said_BT.shape[1]))
