"""Reads the attention of a model's layers while the model runs."""

import functools
from collections.abc import Callable
from typing import Any

import jax
from flax import nnx

from posenc_jax import Encoding, Pairs, Transformer
from posenc_jax import positions as builders
from posenc_jax.attention.dense import dense, products
from posenc_jax.attention.rule import Rule
from posenc_jax.model.stacking import by_layer


def watch(
    model: Transformer,
    look: Callable[[Encoding, Pairs, Rule], Any],
    inputs: Any,
    positions: Any,
    **options: Any,
) -> list[Any]:
    """Returns the results of ``look`` for the attention of each layer, the first layer first.

    ``look`` takes the layer's own encoding, the pairs of all its rotated queries and keys, and the
    rule that says which keys a query sees. The other arguments are as in ``Transformer.hidden``, of
    a decoder or an encoder.
    """
    results: list[Any] = []

    def watched(encoding, pairs, v_BSKC, rule):
        results.append(look(encoding, pairs, rule))
        return dense(encoding, pairs, v_BSKC, rule)

    plain = _written_out(model)
    plain.implementation = watched
    plain.hidden(inputs, positions, **options)
    return results


@functools.partial(jax.jit, static_argnames="look")
def watch_texts(
    model: Transformer, look: Callable[[Encoding, Pairs, Rule], Any], inputs_NT: Any
) -> list[Any]:
    """Returns what ``watch`` does, compiled, for whole texts."""
    return watch(model, look, inputs_NT, builders.text(inputs_NT.shape[1]))


def weights(encoding: Encoding, pairs: Pairs, rule: Rule) -> jax.Array:
    """Returns the attention of every query, float32 ``[B, H, T, S]``, for ``watch``."""
    logits_BHTS = encoding.score(products(pairs.q, pairs.k) * pairs.scale, pairs)
    return jax.nn.softmax(logits_BHTS, where=rule.visible(pairs.q_tokens, pairs.k_tokens))


def _written_out(model):
    """Returns a copy of the model with a module for each layer, without scan and remat."""
    model = jax.tree.map(lambda x: x, model)  # a copy of the module, with the same arrays
    if model.scan:
        layers = by_layer(list(model.layers), model.num_layers)
        for number, layer in enumerate(layers):
            layer.rows = (layer.rows[number // len(model.layers)],)
        model.layers = nnx.List(layers)
    model.scan = model.remat = False
    return model
