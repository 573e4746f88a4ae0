"""The cache stores what a model needs of earlier tokens, so that more tokens can follow.

Keys and values are stored rotated, with the arrays of their tokens that ``score`` reads, so that a
step computes only with new tokens, except in attention itself. A scheme that observes the layer's
input (FoX, PaTH, Selective RoPE) continues from its state after the last token.

Two kinds of schemes repeat their work for all tokens in every step. If a scheme adapts to the
length (``Encoding.reads_length``), keys are stored before ``rotate`` and rotated by the length of
the step, unless the cache is made for one length. If a scheme observes the layer's input without a
state, keys are stored before ``rotate`` too, and the layer's input beside them. KV shift never has
a state, and no scheme has one where tokens have segments.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from posenc_jax.attention import cpu
from posenc_jax.attention.operands import rotate_both
from posenc_jax.checks import check_choice, checked_numbers, checked_positions, count_of
from posenc_jax.encoding import Encoding, Side
from posenc_jax.positions import text
from posenc_jax.tokens import Tokens


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Stored:
    """Holds the arrays of tokens that a layer stores.

    In a cache all arrays have a leading axis, the ``repeats`` of the model's pattern: 1 without
    ``scan``. Heads come before tokens, as the products of attention read them; otherwise every step
    would transpose all slots.
    """

    # Keys and values, rotated or not, ``[B, K, T, C]``, or ``[repeats, B, K, S, C]``.
    k: jax.Array
    v: jax.Array
    # The layer's input, ``[B, T, D]`` or ``[repeats, B, S, D]``; None where the encoding does not
    # observe it, or has a state.
    x: Any
    # What ``observe`` made of the tokens, arrays ``[B, T, ...]`` or ``[repeats, B, S, ...]``; None
    # where ``score`` and ``mix`` do not read it.
    made: Any = None
    # The encoding's state after the last token, arrays ``[B, ...]`` or ``[repeats, B, ...]``; None
    # where it has none.
    state: Any = None

    @classmethod
    def of(cls, k_BTKC, v_BTKC, x_BTD=None, made=None, state=None) -> "Stored":
        """Returns the slots of new tokens."""
        return cls(k_BTKC.swapaxes(1, 2), v_BTKC.swapaxes(1, 2), x_BTD, made, state)

    def of_repeat(self, repeat) -> "Stored":
        """Returns the slots of one layer."""
        return jax.tree.map(lambda slots: slots[repeat], self)

    def mapped(self, function: Callable, *others: "Stored", state: Any) -> "Stored":
        """Returns the results of ``function(axis, *arrays)``, with slots along ``axis``.

        What these slots leave out is left out of ``others`` too.
        """

        def along(axis, *trees):
            if trees[0] is None:
                return None
            return jax.tree.map(functools.partial(function, axis), *trees)

        k, v, x, made = (
            along(axis, *(getattr(stored, name) for stored in (self, *others)))
            for name, axis in (("k", 3), ("v", 3), ("x", 2), ("made", 2))
        )
        return Stored(k, v, x, made, state)


class Past(NamedTuple):
    """Holds the part of the cache that a layer reads."""

    stored: Stored  # the slots of all repeats
    repeat: Any  # which repeat of the pattern the layer is in
    start: Any  # the first slot of the new tokens
    tokens: Tokens  # the tokens of all slots, or the new tokens where no others are in the slots

    def with_new(self, new: Stored) -> Stored:
        """Returns the slots with the new tokens written in their place."""

        def write(axis, slots, tokens):
            at = [0] * slots.ndim
            at[0], at[axis] = self.repeat, self.start
            return cpu.written(slots, tokens[None], at)

        def put(slots, state):
            return jax.lax.dynamic_update_index_in_dim(slots, state, self.repeat, axis=0)

        state = jax.tree.map(put, self.stored.state, new.state)
        return self.stored.mapped(write, new, state=state)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Cache:
    """Holds slots for tokens; the first ``count`` slots are filled. See ``Transformer.extend``.

    It is a plain pytree of arrays: shard it like any other (``B`` over data, ``K`` over heads), and
    donate it to ``jax.jit``, or every step copies it.

    Attributes:
      layers: the slots of each of the model's ``layers``.
      made: for each of the model's distinct encodings, what ``score`` and ``mix`` read of the
        result of ``prepare``, for all slots; None where they do not read it.
      positions: ``[B, S]`` or ``[B, S, A]``.
      segment_ids: int32 ``[B, S]``, or None.
      count: int32 scalar. Where it is not traced, ``extend`` knows whether slots are filled.
      length: the length that schemes adapt to, or None for the length so far (static).
      encodings: the structure of the distinct encodings that the cache was made for (static).
      rotated: for each of them whether keys and values are stored rotated (static).
      moves: for each of them whether it moves positions, as ``randomized`` and ``OnAxes`` do
        (static).
      is_text: whether all tokens so far are text whose positions were left out (static).
    """

    layers: tuple[Stored, ...]
    made: tuple[Any, ...]
    positions: jax.Array
    segment_ids: jax.Array | None
    count: jax.Array | np.ndarray
    length: int | None = dataclasses.field(metadata={"static": True})
    encodings: Any = dataclasses.field(metadata={"static": True})
    rotated: tuple[bool, ...] = dataclasses.field(metadata={"static": True})
    moves: tuple[bool, ...] = dataclasses.field(metadata={"static": True})
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
        batch, size = count_of("batch", batch), count_of("size", size)
        axes = None if axes is None else count_of("axes", axes)
        check_choice(("int32", "float32"), dtype=dtype)
        length = None if length is None else count_of("length", length)
        shape = (batch, size) if axes is None else (batch, size, axes)
        positions = jax.ShapeDtypeStruct(shape, dtype)
        distinct = model.distinct()
        width = model.embedding.shape[-1]
        rotated = [_is_rotated(encoding, width, segments, length) for encoding in distinct]
        slots = [
            jax.eval_shape(functools.partial(_slots, model, length, *both), positions)
            for both in zip(distinct, rotated, strict=True)
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
            rotated=tuple(rotated),
            moves=tuple(_moves(encoding, positions) for encoding in distinct),
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
        self._check(positions, segment_ids, T)
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

    def tokens(self, number: int, encoding: Encoding, T: int) -> tuple[Tokens, Tokens, "Cache"]:
        """Returns the newest tokens, the tokens of all slots, and the cache with both prepared.

        For text, empty slots have the positions at which the text will continue, so that positions
        are known to be consecutive, unless the encoding moves them. ``number`` is the encoding's
        number among the model's distinct ones, and the last T tokens that were counted are new.
        Where these are known to be the first, they come instead of the tokens of all slots.
        """
        start, length = self.count - T, self.length  # type: Any, Any
        is_text = self.is_text and not self.moves[number]
        if is_text and length is None:
            length = self.count.astype(jnp.float32)[None, None]
        if not isinstance(start, jax.core.Tracer) and start == 0:
            return self._first(number, encoding, T, length, is_text)
        if self.rotated[number]:
            return self._prepared_once(number, encoding, start, T, length, is_text)
        positions = text(self.size) if is_text else self.positions
        tokens = encoding.tokens(positions, self.segment_ids, length=length)
        return tokens.part(start, T), tokens, self

    def _first(self, number, encoding, T, length, is_text):
        """Returns ``tokens`` where all tokens are new."""
        positions = text(T) if is_text else self.positions[:, :T]
        segment_ids = None if self.segment_ids is None else self.segment_ids[:, :T]
        new = encoding.tokens(positions, segment_ids, length=length)
        if not self.rotated[number]:
            return new, new, self
        return new, new.rotated(), self._with_made(number, encoding, new, 0)

    def _with_made(self, number, encoding, new, start) -> "Cache":
        """Returns the cache with what the encoding made of new tokens, from slot ``start`` on."""
        slots = self.made[number]
        if slots is None:
            return self
        write = functools.partial(_write, start=start)
        slots = jax.tree.map(write, slots, encoding.of_keys(new.made))
        return dataclasses.replace(
            self, made=(*self.made[:number], slots, *self.made[number + 1 :])
        )

    def _prepared_once(self, number, encoding, start, T, length, is_text):
        """Returns ``tokens`` where keys are stored rotated: only new tokens are prepared."""
        positions = jnp.arange(self.size, dtype=jnp.int32)[None] if is_text else self.positions
        index = start + jnp.arange(T, dtype=jnp.int32)[None]
        newest = (
            None if x is None else jax.lax.dynamic_slice_in_dim(x, start, T, axis=1)
            for x in (positions, self.segment_ids)
        )
        new = encoding.tokens(*newest, index=index, length=length)
        cache = self._with_made(number, encoding, new, start)
        if self.moves[number]:  # The cache holds positions as they came.
            positions = encoding.tokens(positions, length=length).positions
        every = Tokens(
            positions, self.segment_ids, made=cache.made[number], consecutive=is_text
        ).rotated()
        return dataclasses.replace(new, consecutive=is_text), every, cache

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

    def _check(self, positions, segment_ids, T):
        # Under jax.jit the count is not known; the model then gives NaN.
        count = 0 if isinstance(self.count, jax.core.Tracer) else int(self.count)
        if count + T > self.size:
            raise ValueError(
                f"a cache of size={self.size} with {count} tokens has no room for {T} more; "
                f"make it with size={count + T} or more"
            )
        slots, is_row = self.positions, positions.shape[:2] in ((self.batch, T), (1, T))
        if not is_row or positions.ndim != slots.ndim or positions.dtype != slots.dtype:
            raise ValueError(
                f"positions are {positions.dtype} of shape {positions.shape}, but must be of the "
                f"{T} new tokens alone, in a batch of {self.batch} or 1, and as axes= and dtype= "
                f"of Cache.empty say: {slots.dtype} with {slots.ndim} axes"
            )
        given, expected = segment_ids is not None, self.segment_ids is not None
        if given != expected:
            raise ValueError(
                f"segment_ids are {'' if given else 'not '}given, but the cache was made with "
                f"segments={expected}: make it by Cache.empty with segments={given}"
            )


def _slots(
    model: Any, length: int | None, encoding: Encoding, rotated: bool, positions
) -> tuple[Stored, Any]:
    """Returns the slots of one layer, and of all layers together, for tokens at these positions.

    A layer has what ``observe`` makes, and all layers share what ``prepare`` makes.
    """
    B, S = positions.shape[:2]
    k = v = jnp.zeros((B, S, model.num_kv_heads, model.head_dim), model.dtype)
    x_BSD = jnp.zeros((B, S, model.embedding.shape[-1]), model.dtype)
    observes = "observe" in encoding.hooks()
    if not rotated:
        return Stored.of(k, v, x_BSD if observes else None), None
    tokens, state = encoding.tokens(positions, length=length), None
    if observes:
        tokens, state = tokens.resumed(encoding, x_BSD, None)
    side = Side(None, model.num_heads, model.num_kv_heads, is_query=False)
    k, v = rotate_both(encoding, k, v, tokens, side)
    is_read_again = not encoding.hooks().isdisjoint({"score", "mix"})
    made = encoding.of_keys(tokens.made) if is_read_again else None
    if observes:
        return Stored.of(k, v, None, made, state), None
    return Stored.of(k, v), made


def _is_rotated(encoding: Encoding, width: int, segments: bool, length: int | None) -> bool:
    """Returns whether keys and values can be stored rotated."""

    def state():
        return encoding.observe(jnp.zeros((1, 1, width)), encoding.tokens(text(1)))[1]

    if length is None and encoding.reads_length():
        return False
    if "observe" not in encoding.hooks():
        return True
    return not segments and jax.eval_shape(state) is not None


def _moves(encoding: Encoding, positions) -> bool:
    """Returns whether the encoding reads other positions than the ones it is given."""
    program = jax.make_jaxpr(lambda given: encoding.tokens(given).positions)(positions).jaxpr
    return program.outvars[0] is not program.invars[0]


def _write(slots, new, start):
    """Returns slots, ``[B, S, ...]``, with new tokens in them, whose ``B`` may be 1."""
    new = jnp.zeros_like(slots[:, : new.shape[1]]) + new
    return jax.lax.dynamic_update_slice_in_dim(slots, new, start, axis=1)
