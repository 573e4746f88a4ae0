"""Holds what queries attend to: keys and values as attention reads them, and their tokens.

A cache, a ring and cross-attention hold nothing else of an encoding.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from posenc_jax.tokens import Tokens


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Keys:
    """Holds rotated keys and values, and what ``score`` and ``mix`` of their encoding read of them.

    ``here.keys(k, v)`` makes them. Every array has the tokens along axis 1, so ``jax.tree.map``
    cuts, joins and shards Keys like any other pytree.

    Attributes:
      k: keys after ``rotate``, ``[B, S, K, C]``.
      v: values after ``rotate_values``, ``[B, S, K, C]``.
      tokens: their tokens; arrays of these may have one row for the batch.
      made_by: the structure of the encoding (static).
      lasts: whether they stay right when more tokens follow (static). They do not under a scheme
        that adapts to the length of the sequence, unless ``at`` was given one, and under a scheme
        that must see all tokens at once.
    """

    k: jax.Array
    v: jax.Array
    tokens: Tokens
    made_by: Any = dataclasses.field(metadata={"static": True})
    lasts: bool = dataclasses.field(metadata={"static": True})

    @property
    def count(self) -> int:
        """Returns the number of keys, S."""
        return self.k.shape[1]

    def part(self, start: int | jax.Array, count: int) -> "Keys":
        """Returns ``count`` of these keys, from number ``start`` on, as ``Tokens.part`` does."""
        tokens = self.tokens.part(start, count)

        def cut(x):
            return jax.lax.dynamic_slice_in_dim(x, start, count, axis=1)

        return dataclasses.replace(self, k=cut(self.k), v=cut(self.v), tokens=tokens)

    def append(self, new: "Keys") -> "Keys":
        """Returns these keys, followed by those of tokens that were written after them.

        Raises:
          ValueError: the keys do not last, or do not go together.
        """
        old, new = self._alike(new, self.count)
        return jax.tree.map(lambda *both: jnp.concatenate(both, axis=1), old, new)

    def write(self, start: int | jax.Array, new: "Keys") -> "Keys":
        """Returns these keys with new ones in the slots from number ``start`` on.

        ``padded`` makes room for them.

        Raises:
          ValueError: the keys do not last, or do not go together.
        """
        old, new = self._alike(new, start)
        write = jax.lax.dynamic_update_slice_in_dim
        return jax.tree.map(lambda old, new: write(old, new, start, axis=1), old, new)

    def padded(self, size: int) -> "Keys":
        """Returns Keys of ``size`` slots: these keys come first, and empty slots follow.

        An empty slot has the largest possible ``index``, so that causal attention hides it.

        Raises:
          ValueError: there are more keys than slots, or they do not last.
        """
        more = size - self.count
        if more < 0:
            raise ValueError(f"size={size} must not be below the {self.count} keys that there are")

        def pad(x, value=0):
            around = [(0, 0), (0, more), *[(0, 0)] * (x.ndim - 2)]
            return jnp.pad(x, around, constant_values=value)

        self._check_that_it_lasts()
        keys = self._written_out(0)
        index = pad(keys.tokens.order(), 2**31 - 1)
        padded = jax.tree.map(pad, keys)
        return dataclasses.replace(padded, tokens=dataclasses.replace(padded.tokens, index=index))

    def _alike(self, new: "Keys", start) -> tuple["Keys", "Keys"]:
        """Returns both Keys with arrays of the same kind, where the new ones begin at ``start``."""
        self._check_that_it_lasts()
        new._check_that_it_lasts()
        old, new = self._written_out(0), new._written_out(start)
        structures: list[Any] = [jax.tree.structure(keys) for keys in (old, new)]
        if structures[0] != structures[1]:
            raise ValueError(
                "keys of two encodings, or with segment_ids and without, cannot be in one array: "
                "keep Keys for each"
            )
        return old, new

    def _check_that_it_lasts(self):
        if not self.lasts:
            who = self.made_by[0].node_data()[0].__name__
            raise ValueError(
                f"these Keys do not last: {who} rotates all keys again for every token that "
                "follows, because it adapts to the length or must see all tokens at once; keep "
                "keys, values and inputs as here.see and here.keys got them, or, if the scheme "
                "adapts to the length, give all tokens one, encoding.at(..., length=)"
            )

    def _written_out(self, start) -> "Keys":
        """Returns these keys with all that is implied; the first key has the number ``start``.

        Their order is written out, and every array has as many rows as ``k``.
        """
        index = self.tokens.index
        index = start + self.tokens.order() if index is None else index
        tokens = dataclasses.replace(self.tokens, index=index, consecutive=False)
        rows = self.k.shape[0]
        tokens = jax.tree.map(lambda x: jnp.broadcast_to(x, (rows, *x.shape[1:])), tokens)
        return dataclasses.replace(self, tokens=tokens)


def structure(encoding: Any) -> tuple[Any]:
    """Returns the class and keywords of an encoding, the same for all of its layers.

    They are in a tuple, because JAX's structures cannot be compared with None.
    """
    layer = encoding if encoding.stacked is None else encoding.unstacked()
    return (jax.tree.structure(layer),)
