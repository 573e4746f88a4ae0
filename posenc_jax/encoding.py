"""Defines the hooks through which a positional encoding acts on a Transformer.

A scheme subclasses :class:`Encoding` and overrides the hooks that it needs, usually one. The base
class overrides none of them and is itself a scheme: NoPE.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from posenc_jax.checks import (
    check_key,
    check_made,
    checked_length,
    checked_numbers,
    checked_positions,
    count_of,
)
from posenc_jax.positions import one_axis
from posenc_jax.tokens import Stamp, Tokens, is_consecutive, structure

HOOKS = (
    "prepare",
    "embed",
    "observe",
    "rotate",
    "rotate_values",
    "rotate_back",
    "score",
    "mix",
    "aux_loss",
)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Side:
    """Describes one side of attention, queries or keys, and which of the model's heads it has.

    Attributes:
      heads: int32, the indices, within the whole model, of the query (or kv) heads that are given.
        None means all of them.
      num_heads: how many query heads the whole model has (static).
      num_kv_heads: how many kv heads the whole model has (static).
      is_query: whether this is the side of queries (static).
    """

    heads: jax.Array | None
    num_heads: int = dataclasses.field(metadata={"static": True})
    num_kv_heads: int = dataclasses.field(metadata={"static": True})
    is_query: bool = dataclasses.field(metadata={"static": True})

    def of_heads(self, values: jax.Array) -> jax.Array:
        """Returns the rows of ``values``, one for each query head of the model, for these heads."""
        if not self.is_query:
            raise ValueError("of_heads is for queries: keys have kv heads, see of_kv_heads")
        _check_rows(values, num_heads=self.num_heads)
        return values if self.heads is None else values[self.heads]

    def of_kv_heads(self, values: jax.Array) -> jax.Array:
        """Returns the rows of ``values``, one for each kv head of the model, for these heads.

        A query head reads the row of the kv head that it attends to. Keys that were repeated for
        more heads than ``values`` has rows read the row of the head they were repeated from.
        """
        if self.num_kv_heads % values.shape[0]:
            _check_rows(values, num_kv_heads=self.num_kv_heads)
        heads = self.num_heads if self.is_query else self.num_kv_heads
        group = heads // values.shape[0]
        if self.heads is not None:
            return values[self.heads // group]
        return values if group == 1 else jnp.repeat(values, group, axis=0)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Tile:
    """Describes one rectangle of the attention matrix with all that a scheme may read about it.

    Attributes:
      q: queries after ``rotate``, ``[B, T, H, C]``.
      k: keys after ``rotate``, ``[B, S, K, C]``.
      q_tokens, k_tokens: the tokens of the queries and of the keys.
      scale: the number that the products of queries and keys were multiplied by, usually
        ``1 / sqrt(C)``.
      heads: int32 ``[H]``, the indices, within the whole model, of the query heads in this tile.
        None means all of them. A scheme whose heads differ must select its parameters by
        :meth:`of_heads`, or its results are wrong where heads are sharded.
      num_heads: how many query heads the whole model has (static).
      causal: whether later keys are hidden from queries (static); None under ``logits``, where the
        caller applies the mask.
    """

    q: jax.Array
    k: jax.Array
    q_tokens: Tokens
    k_tokens: Tokens
    scale: float | jax.Array
    heads: jax.Array | None
    num_heads: int = dataclasses.field(metadata={"static": True})
    causal: bool | None = dataclasses.field(default=None, metadata={"static": True})

    def of_heads(self, values: jax.Array) -> jax.Array:
        """Returns the rows of ``values``, one for each query head of the model, for this tile."""
        _check_rows(values, num_heads=self.num_heads)
        return values if self.heads is None else values[self.heads]

    def per_head(self, values_H: Any) -> jax.Array:
        """Returns a number for each query head of this tile as logits take it, ``[1, H, 1, 1]``."""
        return self.of_heads(jnp.asarray(values_H))[None, :, None, None]

    def distance(self) -> jax.Array:
        """Returns query position minus key position, float32 ``[B, 1, T, S]``.

        A positive distance looks back.
        """
        q_positions, k_positions = map(one_axis, (self.q_tokens.positions, self.k_tokens.positions))
        # Subtract before the cast: two positions near 2^24 keep their exact distance.
        distance = q_positions[:, None, :, None] - k_positions[:, None, None, :]
        return distance.astype(jnp.float32)


class Encoding(nnx.Module):
    r"""Adds no position at all (NoPE), and is the base class of every scheme.

    https://arxiv.org/abs/2305.19466

    $$ z_{mn} = \frac{q_m \cdot k_n}{\sqrt d} $$

    A causal decoder can still infer the order from how many tokens each position sees.

    Class attributes:
      per_layer: whether the paper gives each layer its own parameters. ``make(..., num_layers=n)``
        then stacks them along a leading axis. ``prepare`` and ``embed`` of such a scheme must not
        read parameters, because they run once for all layers.
      whole_rows: whether ``score`` needs every key that a query may see in one tile.

    Attributes:
      stacked: the number of layers whose parameters this instance holds along a leading axis, or
        None if it holds one layer's, or one set that all layers share. ``of_layer`` returns
        one layer's encoding. A stacked wrapper may hold an encoding that its layers share.
    """

    per_layer = False
    whole_rows = False
    stacked: int | None = None

    def hooks(self) -> frozenset[str]:
        """Returns the names of the hooks that this encoding overrides."""
        return overridden(type(self), Encoding)

    def tokens(
        self,
        positions: Any,
        segment_ids: Any = None,
        *,
        index: Any = None,
        length: int | jax.Array | None = None,
        key: jax.Array | None = None,
    ) -> Tokens:
        """Describes tokens for attention under this encoding; call it once in each forward pass.

        Args:
          positions: whole numbers or float32, ``[B, T]`` or ``[B, T, A]``; ``B`` may be 1.
          segment_ids: int ``[B, T]``. Padding is a segment of its own.
          index: int ``[B, T]``, the order in which the tokens were written, where they are laid out
            in another order.
          length: the length that a scheme such as dynamic NTK adapts to, at most 2**22, a Python
            int or an array that broadcasts against ``[B, T]``. By default it is one more than the
            largest position in the token's own sequence or segment, so that no document depends on
            its neighbours.
          key: fresh randomness in a training step, for schemes that move positions.

        Raises:
          ValueError: an argument has the wrong shape or type, or positions cannot be represented.
        """
        given, positions = positions, checked_positions(positions)
        consecutive = is_consecutive(given)
        if consecutive:
            # Counted on the device, so that no program holds a long row as a constant.
            last, count = int(given[0, -1]), positions.shape[1]
            positions = last + jnp.arange(1 - count, 1, dtype=jnp.int32)[None]
        segment_ids = checked_numbers("segment_ids", segment_ids, positions)
        index = checked_numbers("index", index, positions)
        length = checked_length(length, positions)
        check_key(key)
        tokens = Tokens(positions, segment_ids, index, consecutive=consecutive)
        if "prepare" not in self.hooks():
            return tokens
        fixed = isinstance(length, int | np.integer)
        if length is None and consecutive and segment_ids is None:
            length = last + 1
        prepared = self.prepare(tokens, length=length, key=key)
        check_made(self, prepared.made, tokens.count)
        return dataclasses.replace(prepared, stamp=Stamp(structure(self), "prepared", fixed))

    def reads_length(self) -> bool:
        """Returns whether ``prepare`` depends on the length of the sequence.

        If so, a cache stores keys as they are before ``rotate`` and rotates all of them again for
        every new token, unless it is given one fixed length. Otherwise it rotates each key once.
        """
        if "prepare" not in self.hooks():
            return False

        def prepared(encoding, length):
            return encoding.tokens(np.zeros((1, 2), np.int32), length=length)

        return reads_last(prepared, self, np.ones((1, 1), np.float32))

    def parts(self) -> Iterator["Encoding"]:
        """Yields this encoding, and the encodings that it holds."""
        yield self
        for part in vars(self).values():
            if isinstance(part, Encoding):
                yield from part.parts()

    def of_layer(self, layer: int | jax.Array) -> "Encoding":
        """Returns the encoding of one layer; the same encoding where layers share parameters."""
        if self.stacked is None:
            return self
        if not isinstance(layer, jax.core.Tracer):
            layer = count_of("layer", layer, 0, self.stacked - 1)

        def row(x):
            return x.of_layer(layer) if isinstance(x, Encoding) else x[layer]

        rows = jax.tree.map(row, self, is_leaf=lambda x: isinstance(x, Encoding) and x is not self)
        return rows.unstacked()

    def unstacked(self) -> "Encoding":
        """Returns this encoding as one layer's, inside a ``scan`` or ``vmap`` over layers."""
        copy = jax.tree.map(lambda x: x, self)
        for part in copy.parts():
            if part.stacked is not None:
                part.stacked = None
        return copy

    def prepare(
        self,
        tokens: Tokens,
        *,
        length: float | jax.Array | None = None,
        key: jax.Array | None = None,
    ) -> Tokens:
        """Takes new tokens and returns them prepared for the other hooks, once a forward pass.

        The result is usually ``tokens.having(made)``, where ``made`` is any pytree of arrays with
        the tokens along axis 1, computed from ``tokens.positions``; hooks find it in
        ``tokens.made``. A scheme that moves positions returns ``tokens.at(positions)``.

        Args:
          tokens: positions, segments and index.
          length: the ``length`` of ``Encoding.tokens``, a number or a float32 array that broadcasts
            against ``[B, T]``; None where each sequence or segment has its own length. A scheme
            that adapts to the length reads it by ``tokens.length(length)``, before it moves
            positions: the call finds the lengths that are not given. Plain text has its length
            here, a number, even if ``Encoding.tokens`` was not given one.
          key: a random key, fresh in every training step, and None elsewhere.
        """
        return tokens

    def embed(self, x_BTD: jax.Array, tokens: Tokens) -> jax.Array:
        """Takes token embeddings and returns them with positions added."""
        return x_BTD

    def observe(self, x_BTD: jax.Array, tokens: Tokens, state: Any = None) -> tuple[Any, Any]:
        """Takes a layer's input and returns ``tokens.made`` of this layer, and a state.

        It is for schemes in which the content of the tokens between a query and a key decides how
        far apart they are (FoX, PaTH, Selective RoPE): their gates, transitions and angles come
        from the same input as queries and keys, which ``rotate`` and ``score`` do not see. A scheme
        that combines several tokens must stay within ``tokens.segment_ids``.

        Args:
          x_BTD: the layer's input.
          tokens: its tokens.
          state: the state that the tokens before these left, or None where there are none. With a
            state the tokens are in the order in which they were written, and without segments.

        Returns:
          The new ``tokens.made``, arrays with the tokens along axis 1; and the state after the last
          token, arrays ``[B, ...]`` that are zeros before the first. The state is None in a scheme
          that must see all tokens at once. A cache then keeps the layer's input and calls
          ``observe`` and ``rotate`` with all tokens so far for every new token.
        """
        return tokens.made, ()

    def of_keys(self, made: Any) -> Any:
        """Takes ``tokens.made`` and returns the part that ``score`` and ``mix`` read of keys.

        Arrays that they read of queries only can be left out, to spare copies in tiles and caches.
        Applied to its own result, which a cache stores, it returns the result as it is.
        """
        return made

    def rotate(self, x_BTHC: jax.Array, tokens: Tokens, side: Side) -> jax.Array:
        """Takes queries or keys and returns them rotated, possibly with more channels."""
        return x_BTHC

    def rotate_values(self, v_BSKC: jax.Array, tokens: Tokens, side: Side) -> jax.Array:
        """Takes the values of the keys and returns them rotated, before they are summed."""
        return v_BSKC

    def rotate_back(self, out_BTHC: jax.Array, tokens: Tokens, side: Side) -> jax.Array:
        """Takes the attended sums of the queries and returns them rotated back."""
        return out_BTHC

    def score(self, logits_BHTS: jax.Array, tile: Tile) -> jax.Array:
        """Takes the scaled float32 logits of one tile and returns logits."""
        return logits_BHTS

    def mix(self, out_BTHC: jax.Array, weights_BHTS: jax.Array, tile: Tile) -> jax.Array:
        """Takes a tile's weighted sum of values and returns it with a positional term added.

        ``weights_BHTS`` are float32 and not normalised; the term must be linear in them, and may
        depend on the tile's tokens, but not on its queries and keys.
        """
        return out_BTHC

    def aux_loss(self, key: jax.Array) -> float | jax.Array:
        """Returns the scheme's training objective, a scalar that is added to the loss."""
        return 0.0


def overridden(scheme: type[Encoding], base: type[Encoding]) -> frozenset[str]:
    """Returns the names of the hooks that a class overrides, compared with a base class."""
    return frozenset(n for n in HOOKS if getattr(scheme, n) is not getattr(base, n))


def reads_last(function: Callable[..., Any], *arguments: Any) -> bool:
    """Returns whether the result of ``function`` depends on its last argument, an array."""
    program = jax.make_jaxpr(function)(*arguments).jaxpr
    of_last = [program.invars[-1]]
    for step in program.eqns:
        if any(x is y for x in step.invars for y in of_last):
            of_last += step.outvars
    return any(x is y for x in program.outvars for y in of_last)


def check_overrides(encoding: Encoding) -> None:
    """Checks that an encoding other than NoPE overrides a hook, and so has an effect."""
    if type(encoding) is not Encoding and not encoding.hooks():
        raise ValueError(
            f"{type(encoding).__name__} overrides no hook, so it would have no effect: is a hook "
            f"misspelt? The hooks are {', '.join(HOOKS)}"
        )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class HeadShard:
    """Gives an encoding some of a model's query heads, for ``attend`` inside ``shard_map``.

    Attributes:
      encoding: the scheme, with the parameters of every head.
      heads: int32 ``[H]``, the global numbers of the query heads that attention is given, all
        different. Heads that share a kv head here must share one in the model.
      num_heads: how many query heads the whole model has (static).
    """

    encoding: Encoding
    heads: jax.Array
    num_heads: int = dataclasses.field(metadata={"static": True})


def _check_rows(values: jax.Array, **heads: int):
    ((argument, count),) = heads.items()
    if values.shape[0] != count:
        raise ValueError(
            f"the encoding was made for {argument}={values.shape[0]}, but attention has "
            f"{argument}={count}: pass that to make"
        )
