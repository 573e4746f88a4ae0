"""Looks into the attention of a decoder's layers while it runs."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from posenc_jax import Encoding, Tile, Transformer
from posenc_jax.attention.dense import dense, products
from posenc_jax.attention.rule import Rule


def watch(
    model: Transformer,
    look: Callable[[Encoding, Tile, Rule], Any],
    inputs: Any,
    positions: Any,
    **options: Any,
) -> list[Any]:
    """Returns what ``look`` makes of the attention of each layer, the first layer first.

    Args:
      model: any decoder or encoder of ours.
      look: takes the layer's own encoding, the tile of all its turned queries and keys, and the
        rule that says which keys are seen.
      inputs, positions, **options: as ``Transformer.hidden`` takes them.
    """
    found: list[Any] = []

    def watched(encoding, tile, v_BSKC, rule):
        found.append(look(encoding, tile, rule))
        return dense(encoding, tile, v_BSKC, rule)

    plain = _written_out(model)
    plain.implementation = watched
    plain.hidden(inputs, positions, **options)
    return found


def weights(encoding: Encoding, tile: Tile, rule: Rule) -> jax.Array:
    """Returns what every query of a tile reads, float32 ``[B, H, T, S]``: a look for ``watch``."""
    logits_BHTS = encoding.score(products(tile.q, tile.k) * tile.scale, tile)
    return jax.nn.softmax(logits_BHTS, where=rule.visible(tile.q_tokens, tile.k_tokens))


def attention_weights(model: Transformer, inputs, positions) -> jax.Array:
    """Returns what every query of every layer reads: float32 ``[layers, B, H, T, S]``."""
    return jnp.stack(watch(model, weights, inputs, positions))


def _written_out(model):
    """Returns the model with each layer by itself, neither scanned nor computed twice."""
    turns = model.num_layers // len(model.layers) if model.scan else 1
    model = jax.tree.map(lambda p: p, model)  # a module of its own
    if model.scan:
        model.layers = nnx.List(
            [_of_turn(layer, turn) for turn in range(turns) for layer in model.layers]
        )
    model.scan = model.remat = False
    return model


def _of_turn(layer, turn):
    """Returns one of the layers that a layer under ``scan`` stands for."""
    own = jax.tree.map(lambda p: p[turn], layer)
    source, window = layer.at(turn)
    own.sources, own.windows = (source,), (window,)
    return own
