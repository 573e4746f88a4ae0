"""Trains on LongRoPE2's mixed windows, as a task of ``experiments/training/step.py``."""

import dataclasses

import jax.numpy as jnp

from experiments.training.data import WindowIndex, train_batch
from experiments.training.text import Tuning, token_losses


@dataclasses.dataclass(frozen=True, eq=False)
class MixedWindows(Tuning):
    """Trains a model further on long and on short windows, with half of all tokens in each.

    The model's encoding chooses by length: it is RoPE in short windows, and has LongRoPE2's factors
    in long ones. The paper packs short documents into one long sequence under a mask; here they are
    rows of their own, which is the same. Each long window comes with as many short ones as together
    have its number of tokens.

    Attributes:
      short: the windows of the training length.
    """

    short: WindowIndex

    def batch(self, seed, step, part, parts):
        place = {"seed": seed, "step": step, "part": part, "parts": parts}
        rows = self.recipe.batch_size
        times = self.recipe.length // self.short.length
        return {
            "long": train_batch(self.windows, batch_size=rows, **place),
            "short": train_batch(self.short, batch_size=rows * times, **place),
        }

    def loss(self, model, batch, key):
        sides = [token_losses(model, batch[name], key=key).mean() for name in ("long", "short")]
        return jnp.mean(jnp.stack(sides))
