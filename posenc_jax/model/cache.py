"""The cache stores what a model needs of earlier tokens, so that more tokens can follow."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from posenc_jax.checks import (
    check_choice,
    check_room,
    check_sizes,
    checked_numbers,
    checked_positions,
)
from posenc_jax.encoding import Encoding, Here
from posenc_jax.model.slots import Stored, rotated_once, unrotated
from posenc_jax.positions import text
from posenc_jax.tokens import Tokens


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Cache:
    """Holds slots for tokens; the first ``count`` slots are filled. See ``Transformer.extend``.

    It is a plain pytree of arrays: shard it like any other (``B`` over data, ``K`` over heads), and
    donate it to ``jax.jit``, or every step copies it.

    Attributes:
      layers: the slots of each of the model's ``layers``.
      made: for each of the model's distinct encodings, what ``score`` and ``mix`` read of the
        result of ``prepare``, for all slots; None where they do not read it, and where keys do not
        last.
      positions: ``[B, S]`` or ``[B, S, A]``.
      segment_ids: int32 ``[B, S]``, or None.
      count: int32 scalar. Where it is not traced, ``extend`` knows whether slots are filled.
      length: the length that schemes adapt to, or None for the length so far (static).
      encodings: the structure of the distinct encodings that the cache was made for (static).
      lasts: for each of them whether its keys last (static).
      is_text: whether all tokens so far are text whose positions were left out (static).
    """

    layers: tuple[Stored, ...]
    made: tuple[Any, ...]
    positions: jax.Array
    segment_ids: jax.Array | None
    count: jax.Array | np.ndarray
    length: int | None = dataclasses.field(metadata={"static": True})
    encodings: Any = dataclasses.field(metadata={"static": True})
    lasts: tuple[bool, ...] = dataclasses.field(metadata={"static": True})
    is_text: bool = dataclasses.field(default=True, metadata={"static": True})

    @classmethod
    def empty(
        cls,
        model: Any,
        batch: int,
        size: int,
        *,
        segments: bool = False,
        axes: int | None = None,
        dtype: str = "int32",
        length: int | None = None,
    ) -> "Cache":
        """Makes room for ``size`` tokens of ``batch`` sequences.

        Args:
          model: the Transformer, under the encoding it will run under.
          batch: number of sequences, B.
          size: number of slots, S.
          segments: whether tokens will come with segment ids.
          axes: number of position axes A, of positions ``[B, T, A]``; None for ``[B, T]``.
          dtype: type of the positions, "int32" or "float32".
          length: the length that schemes adapt to at every step. Default: the length so far.
        """
        check_sizes(batch=batch, size=size, axes=axes, length=length)
        check_choice(("int32", "float32"), dtype=dtype)
        shape = (batch, size) if axes is None else (batch, size, axes)
        positions = jax.ShapeDtypeStruct(shape, dtype)
        distinct = model.distinct()
        lasts = [_lasts(e, model.embedding.shape[-1], segments, length) for e in distinct]
        slots = [
            jax.eval_shape(functools.partial(_slots, model, length, *both), positions)
            for both in zip(distinct, lasts, strict=True)
        ]
        repeats = model.num_layers // len(model.layers) if model.scan else 1

        def zeros(tree, *leading):
            return jax.tree.map(lambda x: jnp.zeros((*leading, *x.shape), x.dtype), tree)

        return cls(
            layers=tuple(zeros(slots[layer.source][0], repeats) for layer in model.layers),
            made=tuple(zeros(of_all_layers) for _, of_all_layers in slots),
            positions=zeros(positions),
            segment_ids=jnp.zeros((batch, size), jnp.int32) if segments else None,
            # A number of NumPy, so that a program that makes the cache knows it to be empty.
            count=np.zeros((), np.int32),
            length=length,
            encodings=jax.tree.structure(distinct),
            lasts=tuple(lasts),
        )

    @property
    def batch(self) -> int:
        """Returns the number of sequences, B."""
        return self.positions.shape[0]

    @property
    def size(self) -> int:
        """Returns the number of slots, S."""
        return self.positions.shape[1]

    def with_sequence(self, number, cache: "Cache") -> "Cache":
        """Returns the cache with sequence ``number`` replaced by the single one in ``cache``."""

        def put(name, axis):
            write = functools.partial(
                jax.lax.dynamic_update_slice_in_dim, start_index=number, axis=axis
            )
            return jax.tree.map(write, getattr(self, name), getattr(cache, name))

        batch_axes = {"layers": 1, "made": 0, "positions": 0, "segment_ids": 0}
        arrays = {name: put(name, axis) for name, axis in batch_axes.items()}
        return dataclasses.replace(self, count=cache.count, **arrays)

    def with_positions(self, positions, segment_ids, T: int) -> "Cache":
        """Returns the cache with its next T slots counted, at these positions and segments.

        Empty slots get the position of the last token, so that no length depends on them and none
        is out of a scheme's range. Attention hides them by their larger index.
        """
        is_text = positions is None
        if is_text:
            if not self.is_text or self.segment_ids is not None or self.positions.ndim != 2:
                raise ValueError(
                    "positions=None continues text from position 0, but the cache has tokens "
                    "with positions, segments or several axes; pass positions"
                )
            new = self.count + jnp.arange(T, dtype=jnp.int32)[None]
            positions = new.astype(self.positions.dtype)
        positions = checked_positions(positions)
        check_room(self, positions, segment_ids, T)
        segment_ids = checked_numbers("segment_ids", segment_ids, self.positions[:, :T])

        def filled(slots, new):
            slots = _write(slots, new, self.count)
            number = jax.lax.broadcasted_iota(jnp.int32, slots.shape, 1)
            last = jax.lax.dynamic_slice_in_dim(slots, self.count + T - 1, 1, axis=1)
            return jnp.where(number < self.count + T, slots, last)

        return dataclasses.replace(
            self,
            positions=filled(self.positions, positions),
            segment_ids=None if segment_ids is None else filled(self.segment_ids, segment_ids),
            count=self.count + T,
            is_text=is_text,
        )

    def here(self, number: int, encoding: Encoding, T: int) -> tuple[Here, Any, "Cache"]:
        """Returns the encoding at the newest tokens, ``Past.every``, and the cache with both.

        For text, empty slots have the positions at which the text will continue, so that positions
        are known to be consecutive, unless the encoding moves them. ``number`` is the encoding's
        number among the model's distinct ones, and the last T tokens that were counted are new.
        """
        start: Any = self.count - T
        length: Any = self.length
        is_text = self.is_text and not encoding.overrides("moved")
        if is_text and length is None:
            length = self.count.astype(jnp.float32)[None, None]
        lasts, are_all = self.lasts[number], not isinstance(start, jax.core.Tracer) and start == 0
        size = T if are_all else self.size
        segment_ids = None if self.segment_ids is None else self.segment_ids[:, :size]
        if are_all or not lasts:
            positions = text(size) if is_text else self.positions[:, :size]
            every = encoding.at(positions, segment_ids, length=length)
            if lasts:
                return every, every.tokens, self._with_made(number, every, 0)
            return every if are_all else every.part(start, T), every, self
        positions = jnp.arange(size, dtype=jnp.int32)[None] if is_text else self.positions
        slots = Tokens(positions, segment_ids, consecutive=is_text)
        new = slots.part(start, T)
        here = encoding.at(new.positions, new.segment_ids, index=new.index, length=length)
        cache = self._with_made(number, here, start)
        if encoding.overrides("moved"):  # The cache holds positions as they came.
            slots = slots.moved_to(encoding.at(positions, length=length).tokens.positions)
        tokens = dataclasses.replace(here.tokens, consecutive=is_text)
        here = dataclasses.replace(here, tokens=tokens)
        return here, dataclasses.replace(slots, made=cache.made[number]), cache

    def _with_made(self, number, new: Here, start) -> "Cache":
        """Returns the cache with what the encoding made of new tokens, from slot ``start`` on."""
        slots = self.made[number]
        if slots is None:
            return self
        write = functools.partial(_write, start=start)
        slots = jax.tree.map(write, slots, new.encoding.kept(new.tokens.made))
        made = (*self.made[:number], slots, *self.made[number + 1 :])
        return dataclasses.replace(self, made=made)

    def check_made_for(self, model: Any, batch: int) -> None:
        """Checks that the cache was made for this model's encodings, and for this batch."""
        if batch != self.batch:
            raise ValueError(
                f"inputs are {batch} sequences, but the cache was made for batch={self.batch}: "
                f"make it by Cache.empty with batch={batch}"
            )
        if jax.tree.structure(model.distinct()) != self.encodings:
            raise ValueError(
                "the cache was made for other encodings than this model's, or for the same with "
                "other keywords, and its keys are rotated by those: make it by Cache.empty of this "
                "model"
            )


def _slots(
    model: Any, length: int | None, encoding: Encoding, lasts: bool, positions
) -> tuple[Stored, Any]:
    """Returns the slots of one layer, and of all layers together, for tokens at these positions.

    A layer has what ``observe`` makes, and all layers share what ``prepare`` makes.
    """
    B, S = positions.shape[:2]
    k = v = jnp.zeros((B, S, model.num_kv_heads, model.head_dim), model.dtype)
    here = encoding.at(positions, length=length)
    x_BSD = here.embed(jnp.zeros((B, S, model.embedding.shape[-1]), model.dtype))
    if not lasts:
        return unrotated(here, k, v, x_BSD), None
    stored, _, keys = rotated_once(here, k, v, x_BSD)
    return stored, None if encoding.overrides("observe") else keys.tokens.made


def _lasts(encoding: Encoding, width: int, segments: bool, length: int | None) -> bool:
    """Returns whether keys last in a cache, with or without segments."""
    segment_ids = np.zeros((1, 1), np.int32) if segments else None

    def seen():
        return encoding.at(text(1), segment_ids, length=length).see(jnp.zeros((1, 1, width)))[0]

    return jax.eval_shape(seen).lasts()


def _write(slots, new, start):
    """Returns slots, ``[B, S, ...]``, with new tokens in them, whose ``B`` may be 1."""
    new = jnp.zeros_like(slots[:, : new.shape[1]]) + new
    return jax.lax.dynamic_update_slice_in_dim(slots, new, start, axis=1)
