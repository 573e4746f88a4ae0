"""The cache holds what a model keeps of the tokens it has read, so that more can follow.

Nothing that depends on the length of the sequence is kept: keys and values as they are before
``rotate``, and the layer's input where the encoding reads it (FoX, PaTH, Selective RoPE). Every
hook runs anew over all slots, so a scheme that adapts to the length turns old keys with the new
one, and one that sums over tokens goes on where it stopped.
"""

import dataclasses
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from posenc_jax.encoding import Encoding
from posenc_jax.positions import text
from posenc_jax.tokens import Tokens, check_positions

if TYPE_CHECKING:
    from posenc_jax.model.transformer import Transformer


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Kept:
    """Holds what a layer makes of tokens before it looks at their positions.

    In a cache there is a leading axis: the turns of the model's pattern under ``scan``, else 1.

    Attributes:
      k, v: keys and values, ``[B, T, K, C]``, or ``[turns, B, S, K, C]``.
      x: what they are projected from, ``[B, T, D]`` or ``[turns, B, S, D]``; None where the
        encoding does not read it.
    """

    k: jax.Array
    v: jax.Array
    x: Any

    def of_turn(self, turn) -> "Kept":
        """Returns what one layer has kept."""
        return jax.tree.map(lambda slots: slots[turn], self)


class Past(NamedTuple):
    """Holds what a layer finds in the cache.

    Attributes:
      kept: the slots of all turns.
      turn: which turn of the pattern the layer is in.
      start: the first slot of the new tokens.
    """

    kept: Kept
    turn: Any
    start: Any

    def with_new(self, new: Kept) -> Kept:
        """Returns the slots with the new tokens written in their place."""

        def write(slots, tokens):
            if slots is None:
                return None
            at = self.turn, 0, self.start, *[0] * (slots.ndim - 3)
            return jax.lax.dynamic_update_slice(slots, tokens[None], at)

        return jax.tree.map(write, self.kept, new, is_leaf=lambda slots: slots is None)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Cache:
    """Holds slots for tokens, of which the first ``count`` are filled; see ``Transformer.extend``.

    A plain pytree of arrays: shard it as any other (``B`` over data, ``K`` over heads), and donate
    it to ``jax.jit``, or every step copies it.

    Attributes:
      layers: what each of the model's ``layers`` has kept.
      positions: ``[B, S]`` or ``[B, S, A]``.
      segment_ids: int32 ``[B, S]``, or None.
      count: int32 scalar.
      is_text: whether all tokens so far are text whose positions were left out (static).
    """

    layers: tuple[Kept, ...]
    positions: jax.Array
    segment_ids: jax.Array | None
    count: jax.Array
    is_text: bool = dataclasses.field(default=True, metadata={"static": True})

    @classmethod
    def empty(
        cls,
        model: "Transformer",
        batch: int,
        size: int,
        *,
        segments: bool = False,
        axes: int | None = None,
        dtype: str = "int32",
    ) -> "Cache":
        """Makes room for ``size`` tokens of ``batch`` sequences.

        Args:
          model: the Transformer, under the encoding it will run under.
          batch: number of sequences, B.
          size: number of slots, S.
          segments: whether tokens will come with segment ids.
          axes: number of position axes A, of positions ``[B, T, A]``; None for ``[B, T]``.
          dtype: type of the positions, "int32" or "float32".
        """
        for name, value in (("batch", batch), ("size", size)):
            if value < 1:
                raise ValueError(f"{name}={value} must be at least 1")
        turns = model.num_layers // len(model.layers) if model.scan else 1

        def zeros(*widths):
            return jnp.zeros((turns, batch, size, *widths), model.dtype)

        def kept(is_read):
            heads = model.num_kv_heads, model.head_dim
            x = zeros(model.embedding.shape[-1]) if is_read else None
            return Kept(zeros(*heads), zeros(*heads), x)

        return cls(
            tuple(kept(is_read) for is_read in _reads(model)),
            jnp.zeros((batch, size) if axes is None else (batch, size, axes), dtype),
            jnp.zeros((batch, size), jnp.int32) if segments else None,
            jnp.zeros((), jnp.int32),
        )

    @property
    def size(self) -> int:
        """Returns the number of slots, S."""
        return self.positions.shape[1]

    def with_places(self, positions, segment_ids, T: int) -> "Cache":
        """Returns the cache with its next T slots at these positions, in these segments, counted.

        Slots not filled repeat the place of the last token, so that no length depends on them and
        no scheme finds them out of range. Attention hides them: their index is ahead.
        """
        is_text = positions is None
        if is_text:
            if not self.is_text or self.segment_ids is not None or self.positions.ndim != 2:
                raise ValueError(
                    "positions=None goes on with text from position 0, but the cache has tokens "
                    "with positions, segments or several axes; pass positions"
                )
            new = self.count + jnp.arange(T, dtype=jnp.int32)[None]
            positions = new.astype(self.positions.dtype)
        positions = check_positions(positions)
        self._check(positions, segment_ids, T)

        def place(slots, new):
            new = jnp.zeros_like(slots[:, :T]) + new
            slots = jax.lax.dynamic_update_slice_in_dim(slots, new, self.count, axis=1)
            number = jax.lax.broadcasted_iota(jnp.int32, slots.shape, 1)
            return jnp.where(number < self.count + T, slots, new[:, -1:])

        return dataclasses.replace(
            self,
            positions=place(self.positions, positions),
            segment_ids=None if segment_ids is None else place(self.segment_ids, segment_ids),
            count=self.count + T,
            is_text=is_text,
        )

    def tokens(self, encoding: Encoding, length=None) -> Tokens:
        """Returns the tokens of all slots under ``encoding``.

        Under text the slots not filled are where the text will go on, so that positions are known
        to be consecutive, unless the encoding moves positions.
        """
        if not self.is_text or "place" in encoding.hooks():
            return Tokens.of(encoding, self.positions, self.segment_ids, length=length)
        length = self.count.astype(jnp.float32)[None, None] if length is None else length
        return Tokens.of(encoding, text(self.size), length=length)

    def check_layers(self, model: "Transformer") -> None:
        """Refuses a model under other encodings than the cache was made for."""
        reads = _reads(model)
        if reads != [kept.x is not None for kept in self.layers]:
            raise ValueError(
                f"the cache was made for a pattern of {len(self.layers)} encodings that read other "
                f"things than these {len(reads)}; make it by Cache.empty of the same model"
            )

    def _check(self, positions, segment_ids, T):
        # Under jax.jit the count is not known; the model then gives NaN.
        count = 0 if isinstance(self.count, jax.core.Tracer) else int(self.count)
        if count + T > self.size:
            raise ValueError(
                f"a cache of size={self.size} with {count} tokens has no room for {T} more; "
                f"make it with size={count + T} or more"
            )
        if positions.ndim != self.positions.ndim or positions.dtype != self.positions.dtype:
            raise ValueError(
                f"positions are {positions.dtype} with {positions.ndim} axes, but the cache was "
                f"made for {self.positions.dtype} with {self.positions.ndim}; pass axes= and "
                "dtype= to Cache.empty"
            )
        if (segment_ids is None) != (self.segment_ids is None):
            raise ValueError(
                f"segment_ids are {'not ' if segment_ids is None else ''}given, but the cache was "
                f"made with segments={self.segment_ids is not None}; pass the other to Cache.empty"
            )


def _reads(model: "Transformer") -> list[bool]:
    """Says for each of the model's layers whether its encoding reads the layer's input."""
    distinct = model.distinct()
    return ["read" in distinct[layer.source].hooks() for layer in model.layers]
