"""The task of all experiments on text: predict the next token of windows of a corpus."""

import dataclasses
import functools

import jax
import numpy as np
from flax import nnx
from jax.sharding import PartitionSpec
from ml_collections import FrozenConfigDict

from experiments.config import make_encoding
from experiments.data import WindowIndex, train_batch
from experiments.train import Recipe, State, initial_state
from posenc_jax import Transformer, cross_entropy
from posenc_jax.attention.ring import context_size, zigzag
from posenc_jax.rotary import positions


@dataclasses.dataclass(frozen=True, eq=False)
class Text:
    """A ``Task``: a batch is int32 tokens ``[B, recipe.length + 1]``.

    Attributes:
      spec: keywords of ``make`` in ``encoding`` and of ``Transformer`` in ``model``.
      recipe: length and number of the windows.
      windows: where they come from.
    """

    spec: FrozenConfigDict
    recipe: Recipe
    windows: WindowIndex

    def init(self, key) -> Transformer:
        return make_model(key, self.spec, self.recipe.length)

    def batch(self, seed, step, process_index, process_count) -> np.ndarray:
        return train_batch(
            self.windows,
            batch_size=self.recipe.batch_size,
            seed=seed,
            step=step,
            process_index=process_index,
            process_count=process_count,
        )

    def loss(self, model, tokens_BL, key):
        return mean_loss(model, tokens_BL, key)


def make_model(key, spec: FrozenConfigDict, length: int) -> Transformer:
    encoding_key, model_key = jax.random.split(key)
    encoding = make_encoding(spec.encoding, spec.model, length, nnx.Rngs(encoding_key))
    return Transformer(encoding, **spec.model, rngs=nnx.Rngs(model_key))


def text_state(key, spec: FrozenConfigDict, recipe: Recipe) -> State:
    """What training starts from; it needs no corpus."""
    init = functools.partial(make_model, spec=spec, length=recipe.length)
    return initial_state(key, init, recipe)


def mean_loss(model, tokens_BL, key):
    return token_losses(model, tokens_BL, key=key).mean()


def token_losses(model, tokens_BL, encoding=None, key=None):
    """Cross-entropy in nats of each token but the first, given those before it: ``[B, L - 1]``.

    On a mesh with several devices along ``context`` each of them works on a part of every sequence.
    """
    inputs_BT, targets_BT = tokens_BL[:, :-1], tokens_BL[:, 1:]
    places, index, written = positions.text(inputs_BT.shape[1]), None, None
    devices = context_size()
    if devices > 1:
        order = zigzag(inputs_BT.shape[1], devices)
        index, written = order[None], np.argsort(order)
        inputs_BT, targets_BT, places = (x[:, order] for x in (inputs_BT, targets_BT, places))
        inputs_BT = jax.lax.with_sharding_constraint(inputs_BT, PartitionSpec("data", "context"))
    x_BTD = model.hidden(inputs_BT, places, encoding=encoding, key=key, index=index)
    losses_BT = cross_entropy(x_BTD, model.embedding[...], targets_BT)
    return losses_BT if written is None else losses_BT[:, written]
