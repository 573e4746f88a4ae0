"""Describes pairs of queries and keys to a scheme, and the heads on either side of them."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from posenc_jax.positions import one_axis
from posenc_jax.tokens import Tokens


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Side:
    """Describes one side of attention, queries or keys, and which of the model's heads it has.

    Attributes:
      heads: int32, the indices, within the whole model, of the heads that are given on this side.
        None means all of them.
      num_heads: how many heads the whole model has on this side (static).
      is_query: whether this is the side of queries (static).
    """

    heads: jax.Array | None
    num_heads: int = dataclasses.field(metadata={"static": True})
    is_query: bool = dataclasses.field(metadata={"static": True})

    def of_heads(self, values: jax.Array) -> jax.Array:
        """Returns the rows of ``values``, one for each query head of the model, for these heads."""
        if not self.is_query:
            raise ValueError("of_heads is for queries: keys have kv heads, see of_kv_heads")
        if values.shape[0] != self.num_heads:
            raise _wrong_number("num_heads", values.shape[0], self.num_heads)
        return values if self.heads is None else values[self.heads]

    def of_kv_heads(self, values: jax.Array) -> jax.Array:
        """Returns the rows of ``values``, one for each kv head of the model, for these heads.

        A query head reads the row of the kv head that it attends to. Keys that were repeated for
        more heads than ``values`` has rows read the row of the head they were repeated from.
        """
        if self.num_heads % values.shape[0]:
            raise _wrong_number("num_kv_heads", values.shape[0], self.num_heads)
        group = self.num_heads // values.shape[0]
        if self.heads is not None:
            return values[self.heads // group]
        return values if group == 1 else jnp.repeat(values, group, axis=0)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Pairs:
    """Describes all pairs of some queries and some keys, with all that a scheme may read of them.

    Attributes:
      q: queries after ``rotate``, ``[B, T, H, C]``.
      k: keys after ``rotate``, ``[B, S, K, C]``.
      q_tokens: the tokens of the queries.
      k_tokens: the tokens of the keys, whose ``made`` is what the scheme's ``kept`` returned.
      scale: the number that the products of queries and keys were multiplied by, usually
        ``1 / sqrt(C)``.
      side: which query heads these are. A scheme whose heads differ must select its parameters by
        :meth:`of_heads`, or its results are wrong where heads are sharded.
      causal: whether later keys are hidden from queries (static); None under ``logits``, where the
        caller applies the mask.
    """

    q: jax.Array
    k: jax.Array
    q_tokens: Tokens
    k_tokens: Tokens
    scale: float | jax.Array
    side: Side
    causal: bool | None = dataclasses.field(default=None, metadata={"static": True})

    @classmethod
    def of_tokens(cls, q_tokens: Tokens, k_tokens: Tokens, side: Side) -> "Pairs":
        """Returns pairs of tokens without vectors, so that a hook that reads these fails."""
        none: Any = None
        return cls(none, none, q_tokens, k_tokens, 1.0, side)

    def of_heads(self, values: jax.Array) -> jax.Array:
        """Returns the rows of ``values``, one for each query head of the model, for these heads."""
        return self.side.of_heads(values)

    def per_head(self, values_H: Any) -> jax.Array:
        """Returns a number for each of these query heads as logits take it, ``[1, H, 1, 1]``."""
        return self.of_heads(jnp.asarray(values_H))[None, :, None, None]

    def distance(self) -> jax.Array:
        """Returns query position minus key position, float32 ``[B, 1, T, S]``.

        A positive distance looks back.
        """
        q_positions, k_positions = map(one_axis, (self.q_tokens.positions, self.k_tokens.positions))
        # Subtract before the cast: two positions near 2^24 keep their exact distance.
        distance = q_positions[:, None, :, None] - k_positions[:, None, None, :]
        return distance.astype(jnp.float32)


def _wrong_number(argument: str, made_for: int, given: int) -> ValueError:
    return ValueError(
        f"the encoding was made for {argument}={made_for}, but attention has {argument}={given}: "
        "pass that to make"
    )
