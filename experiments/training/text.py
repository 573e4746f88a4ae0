"""Defines the tasks of experiments on text: predicting the next token in windows of a corpus."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import PartitionSpec
from ml_collections import FrozenConfigDict

from experiments.training.phases import UNCHANGED, Phase, encoding_in
from experiments.training.recipe import Recipe
from experiments.training.windows import PackedIndex, WindowIndex, packed_batch, train_batch
from posenc_jax import Transformer, cross_entropy, positions
from posenc_jax.attention.context import context_size, zigzag
from posenc_jax.model.transformer import ROWS

# Tokens whose logits are held at the same time to find the most likely next token.
_TOKENS = 512


@dataclasses.dataclass(frozen=True, eq=False)
class NextToken:
    """Draws the batches of training on text, and computes their loss, for any initial model.

    Batches are int32 tokens ``[B, recipe.length + 1]``, drawn from ``windows``.
    """

    recipe: Recipe
    windows: WindowIndex

    def batch(self, seed, step, part, parts) -> np.ndarray:
        return train_batch(self.windows, self.recipe.batch_size, seed, step, part, parts)

    def loss(self, model, tokens_BL, key):
        return token_losses(model, tokens_BL, key).mean()


@dataclasses.dataclass(frozen=True, eq=False)
class Text(NextToken):
    """Trains a new model, as a ``Task``.

    The ``spec`` has keywords of ``make`` in ``encoding`` and of ``Transformer`` in ``model``. The
    ``phase`` is the number of the recipe's phase that the model and the batches are of. Raises a
    ValueError if the model would see the tokens that it is to predict.
    """

    spec: FrozenConfigDict
    phase: int = 0

    def __post_init__(self):
        if not self.spec.model.get("causal", True):
            raise ValueError(
                "model.causal=False shows the model the tokens that it must predict, so it would "
                "learn to copy them: leave it out"
            )

    def at(self, number: int) -> "Text":
        """Returns the task within a phase of the recipe."""
        windows = self.windows.at(self.recipe.in_phase(number).length)
        return dataclasses.replace(self, windows=windows, phase=number)

    def batch(self, seed, step, part, parts):
        rows = self.recipe.in_phase(self.phase).batch_size
        return train_batch(self.windows, rows, seed, step, part, parts)

    def init(self, key) -> Transformer:
        return make_model(key, self.spec, self.recipe.length, self.recipe.parts[self.phase])


@dataclasses.dataclass(frozen=True, eq=False)
class PackedText(Text):
    """Trains a new model on packed rows, as a ``Task``; batches are those of ``packed_batch``.

    With ``restart``, positions begin at 0 again with each document of a row.
    """

    windows: PackedIndex
    restart: bool = dataclasses.field(default=True, kw_only=True)

    def batch(self, seed, step, part, parts):
        rows = self.recipe.in_phase(self.phase).batch_size
        return packed_batch(self.windows, rows, seed, step, part, parts)

    def loss(self, model, batch, key):
        """Returns the mean loss of all tokens whose next token is of the same document.

        Micro-batches of ``train.accumulate`` count alike, though one may have more such tokens.
        """
        inputs_BT, targets_BT = batch["segments"][:, :-1], batch["segments"][:, 1:]
        places = positions.packed(inputs_BT) if self.restart else positions.text(inputs_BT.shape[1])
        losses_BT = token_losses(model, batch["tokens"], key, inputs_BT, places)
        is_predicted_BT = (inputs_BT == targets_BT) & (targets_BT >= 0)
        count = jnp.maximum(is_predicted_BT.sum(), 1)
        return jnp.where(is_predicted_BT, losses_BT, 0).sum() / count


@dataclasses.dataclass(frozen=True, eq=False)
class Tuning(NextToken):
    """Trains a given model further, as a ``Task``; ``train`` takes its state as ``start``.

    The ``model`` is under the encoding that it is trained under from now on; it may have shapes
    instead of its arrays, to estimate the cost of training it.
    """

    model: Transformer

    def init(self, key) -> Transformer:
        """Returns the model, with zeros where it has shapes alone."""

        def with_values(array):
            is_shape = isinstance(array, jax.ShapeDtypeStruct)
            return jnp.zeros(array.shape, array.dtype) if is_shape else array

        return jax.tree.map(with_values, self.model)


def spec_of(encoding: Mapping[str, Any], model: Mapping[str, Any], **more: Any) -> FrozenConfigDict:
    """Returns the spec of a model, given the keywords of its encoding and its own."""
    return FrozenConfigDict({"encoding": encoding, "model": {**model, **more}})


def make_model(key, spec: FrozenConfigDict, length: int, phase: Phase = UNCHANGED) -> Transformer:
    """Builds the model of ``spec``, trained at ``length`` tokens, as it is in a phase."""
    encoding_key, model_key = jax.random.split(key)
    rngs = nnx.Rngs(encoding_key)
    encoding = encoding_in(phase, spec.encoding, spec.model, length, rngs)
    return Transformer(encoding, **spec.model, rngs=nnx.Rngs(model_key))


def token_losses(
    model: Transformer, tokens_BL, key=None, segments_BT=None, positions_BT=None
) -> jax.Array:
    """Returns the cross-entropy of each token but the first, given those before it.

    The result is in nats, ``[B, L - 1]``. Segments and positions are of all tokens but the last; by
    default a row is one text. On a mesh with several devices along ``context`` each of them works
    on a part of every sequence.
    """

    def losses(x_BTD, targets_BT):
        return cross_entropy(x_BTD, model.output_table, targets_BT)

    return _by_token(losses, model, tokens_BL, segments_BT, positions_BT, key=key)


def token_losses_and_hits(model: Transformer, tokens_BL, length=None) -> jax.Array:
    """Returns ``token_losses`` and whether the most likely token was the right one.

    The result is float32 ``[B, L - 1, 2]``; a hit is 1. ``length`` is what ``Encoding.at``
    takes.
    """

    def is_hit(pair):
        x_D, target = pair
        return jnp.argmax(model.unembed(x_D[None, None])[0, 0]) == target

    def both(x_BTD, targets_BT):
        pairs = x_BTD.reshape(-1, x_BTD.shape[-1]), targets_BT.reshape(-1)
        hits_BT = jax.lax.map(is_hit, pairs, batch_size=_TOKENS).reshape(targets_BT.shape)
        losses_BT = cross_entropy(x_BTD, model.output_table, targets_BT)
        return jnp.stack([losses_BT, hits_BT.astype(jnp.float32)], axis=-1)

    return _by_token(both, model, tokens_BL, length=length)


def _by_token(function, model, tokens_BL, segments_BT=None, positions_BT=None, **options):
    """Returns ``function`` of the output layer's inputs and targets, in the order of tokens.

    The ``options`` are keywords of ``Transformer.hidden``.
    """
    inputs_BT, targets_BT = tokens_BL[:, :-1], tokens_BL[:, 1:]
    # NumPy, so that positions are known to be consecutive while the model is traced.
    places = positions.text(inputs_BT.shape[1]) if positions_BT is None else positions_BT
    devices, restored = context_size(), None
    if devices > 1:
        order = zigzag(inputs_BT.shape[1], devices)
        options["index"], restored = order[None], np.argsort(order)
        inputs_BT, targets_BT, places = (x[:, order] for x in (inputs_BT, targets_BT, places))
        segments_BT = None if segments_BT is None else segments_BT[:, order]
        inputs_BT = jax.lax.with_sharding_constraint(inputs_BT, PartitionSpec(ROWS, "context"))
    by_token = function(model.hidden(inputs_BT, places, segments_BT, **options), targets_BT)
    return by_token if restored is None else by_token[:, restored]
