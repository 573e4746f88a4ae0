"""Measures whether the outputs of an untrained model depend on the order of its tokens."""

from collections.abc import Iterable

import jax
import jax.numpy as jnp
from flax import nnx

from experiments.report.study import BASELINE, Study
from posenc_jax import Transformer, make, positions

_HEADS, _WIDTH, _LAYERS = 4, 32, 2
# Keywords of schemes for attention in both directions.
_BOTH_WAYS = {"t5": {"bidirectional": True}}


def order_study(schemes: Iterable[str], seeds: int) -> Study:
    """Compares the outputs of three tokens, 我爱你, with those of the same tokens reversed.

    A record has ``scheme, seed, causal, distance``: the largest change of a token's output, over
    the size of that output. It is 0 if the outputs are the same set.
    """
    wanted = [(BASELINE, True), (BASELINE, False), *((scheme, False) for scheme in schemes)]
    records = [
        {
            "scheme": scheme,
            "seed": seed,
            "causal": causal,
            "distance": _distance(scheme, causal, seed),
        }
        for seed in range(seeds)
        for scheme, causal in wanted
    ]
    return Study(records, [], [], {})


def _distance(scheme: str, causal: bool, seed: int) -> float:
    rngs = nnx.Rngs(seed)
    encoding = make(
        scheme,
        num_heads=_HEADS,
        head_dim=_WIDTH // _HEADS,
        model_dim=_WIDTH,
        num_layers=_LAYERS,
        train_length=3,
        rngs=rngs,
        **_BOTH_WAYS.get(scheme, {}),
    )
    model = Transformer(
        encoding,
        vocab_size=3,
        model_dim=_WIDTH,
        num_layers=_LAYERS,
        num_heads=_HEADS,
        causal=causal,
        rngs=rngs,
    )
    said_BT = jnp.array([[0, 1, 2], [2, 1, 0]])
    x_BTD = jax.jit(lambda model: model.hidden(said_BT, positions.text(3)))(model)
    # The outputs of the same three tokens, in the same order.
    one_TD, other_TD = x_BTD[0], x_BTD[1, ::-1]
    changes_T = jnp.linalg.norm(one_TD - other_TD, axis=-1) / jnp.linalg.norm(one_TD, axis=-1)
    return float(changes_T.max())
