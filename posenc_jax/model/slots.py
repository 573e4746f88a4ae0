"""Stores what one layer needs of earlier tokens, and attends to them.

Keys and values are stored as ``Here.keys`` gives them, so that a step computes only with new
tokens, except in attention itself. A scheme that observes the layer's input (FoX, PaTH, Selective
RoPE) continues from its state after the last token.

Where keys do not last (``Here.lasts``), a step repeats its work for all tokens: keys are stored
before ``rotate``, with the layer's input if the scheme observes it.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from posenc_jax.attention import attend, cpu
from posenc_jax.encoding import Here, rotated
from posenc_jax.keys import Keys
from posenc_jax.tokens import Tokens


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Stored:
    """Holds what a layer stores of tokens.

    In a cache all arrays have a leading axis, the ``repeats`` of the model's pattern: 1 without
    ``scan``. Heads come before tokens, as the products of attention read them; otherwise every step
    would transpose all slots.
    """

    # Keys and values, ``[B, K, T, C]``, or ``[repeats, B, K, S, C]``.
    k: jax.Array
    v: jax.Array
    # What ``score`` and ``mix`` read of the keys of a scheme that observes the layer's input; or,
    # where keys do not last, this input: arrays ``[B, T, ...]`` or ``[repeats, B, S, ...]``.
    seen: Any
    # The scheme's state after the last token, arrays ``[B, ...]`` or ``[repeats, B, ...]``.
    state: Any = None

    @classmethod
    def of(cls, k_BTKC, v_BTKC, seen, state=None) -> "Stored":
        """Returns the slots of new tokens."""
        return cls(k_BTKC.swapaxes(1, 2), v_BTKC.swapaxes(1, 2), seen, state)

    def kv(self) -> tuple[jax.Array, jax.Array]:
        """Returns the keys and the values of one layer, ``[B, S, K, C]``."""
        return self.k.swapaxes(1, 2), self.v.swapaxes(1, 2)

    def mapped(self, function: Callable, *others: "Stored", state: Any) -> "Stored":
        """Returns the results of ``function(axis, *arrays)``, with slots along ``axis``."""

        def along(axis, name):
            trees = (getattr(stored, name) for stored in (self, *others))
            return jax.tree.map(functools.partial(function, axis), *trees)

        return Stored(along(3, "k"), along(3, "v"), along(2, "seen"), state)


def rotated_once(here: Here, k, v, x_BTD, state=None) -> tuple[Stored, Here, Keys]:
    """Returns what a layer stores of new tokens whose keys last.

    The other results are the encoding after it has seen the tokens, and their Keys.
    """
    here, state = here.see(x_BTD, state)
    keys = rotated(here, k, v)
    made = keys.tokens.made if here.encoding.overrides("observe") else None
    return Stored.of(keys.k, keys.v, made, state), here, keys


def unrotated(here: Here, k, v, x_BTD) -> Stored:
    """Returns what a layer stores of new tokens whose keys do not last."""
    return Stored.of(k, v, x_BTD if here.encoding.overrides("observe") else None)


class Past(NamedTuple):
    """Holds the part of the cache that a layer reads."""

    stored: Stored  # the slots of all repeats
    repeat: Any  # which repeat of the pattern the layer is in
    start: Any  # the first slot of the new tokens
    # The tokens of all slots; or, where keys do not last, the encoding at them. Where no earlier
    # tokens are in the slots, it is the new tokens alone.
    every: Tokens | Here

    def attend(self, here: Here, q, k, v, x_BTD, **rule):
        """Returns the attended sums of new tokens, and the slots with the new tokens in them."""
        if isinstance(self.every, Here):
            return self._attend_again(here, q, k, v, x_BTD, **rule)
        new, here, keys = rotated_once(here, k, v, x_BTD, self._state())
        layer, stored = self._with(new, self.every.count)
        if layer is not new:
            made = self.every.made if layer.seen is None else layer.seen
            k, v = layer.kv()
            tokens = dataclasses.replace(self.every, made=made)
            keys = dataclasses.replace(keys, k=k, v=v, tokens=tokens)
        return attend(here, q, keys, **rule), stored

    def _attend_again(self, here, q, k, v, x_BTD, **rule):
        """Attends where all keys are rotated in each step."""
        assert isinstance(self.every, Here)
        every = dataclasses.replace(self.every, encoding=here.encoding)
        new = unrotated(here, k, v, x_BTD)
        layer, stored = self._with(new, every.tokens.count)
        every, _ = every.see(layer.seen)
        if layer is new:
            here = every
        elif layer.seen is not None:
            here = every.part(self.start, q.shape[1])
        return attend(here, q, rotated(every, *layer.kv()), **rule), stored

    def _state(self):
        """Returns the layer's state, zeros at slot 0: a text does not go on from an earlier one."""
        state = jax.tree.map(lambda x: x[self.repeat], self.stored.state)
        return jax.tree.map(lambda x: jnp.where(self.start == 0, jnp.zeros_like(x), x), state)

    def _with(self, new: Stored, count: int) -> tuple[Stored, Stored]:
        """Returns the slots of this layer and of all repeats, with the new tokens in their place.

        Where the new tokens are all that there are, ``count``, none need be read from the slots.
        """

        def write(axis, slots, tokens):
            at = [0] * slots.ndim
            at[0], at[axis] = self.repeat, self.start
            return cpu.written(slots, tokens[None], at)

        def put(slots, state):
            return jax.lax.dynamic_update_index_in_dim(slots, state, self.repeat, axis=0)

        state = jax.tree.map(put, self.stored.state, new.state)
        stored = self.stored.mapped(write, new, state=state)
        if count == new.k.shape[2]:
            return new, stored
        return jax.tree.map(lambda slots: slots[self.repeat], stored), stored
