"""What a model keeps of the tokens it has read, so that more can follow.

Nothing that depends on the length of the sequence is kept: keys and values as they are before
``rotate``, and the layer's input where the encoding reads it (FoX, PaTH, Selective RoPE). Every
hook runs anew over all slots, so a scheme that adapts to the length turns old keys with the new
one, and one that sums over tokens goes on where it stopped.
"""

import dataclasses

import jax
import jax.numpy as jnp

from posenc_jax.encoding import Tokens
from posenc_jax.layers import Layers


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Kept:
    """What a layer makes of tokens before it looks at their positions; in a cache, several layers.

    Attributes:
      k, v: keys and values, ``[B, T, K, C]``, or ``[turns, B, S, K, C]``.
      x: what they are projected from, ``[B, T, D]`` or ``[turns, B, S, D]``; None where the
        encoding does not read it.
    """

    k: jax.Array
    v: jax.Array
    x: jax.Array | None

    def with_new(self, new: "Kept", turn, start) -> "Kept":
        """``new`` tokens of the layers from ``turn`` on, in the slots from ``start`` on."""

        def write(slots, tokens):
            if slots is None:
                return None
            at = turn, 0, start, *[0] * (slots.ndim - 3)
            return jax.lax.dynamic_update_slice(slots, tokens, at)

        return jax.tree.map(write, self, new, is_leaf=lambda slots: slots is None)

    def of_turn(self, turn) -> "Kept":
        """Of one layer."""
        return jax.tree.map(lambda slots: slots[turn], self)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Cache:
    """Slots for tokens, of which the first ``count`` are filled; see ``Transformer.extend``.

    A plain pytree of arrays: shard it as any other (``B`` over data, ``K`` over heads), and donate
    it to ``jax.jit``, or every step copies it.

    Attributes:
      layers: for each place of the model's pattern what its layers keep, with a leading axis of the
        turns of the pattern.
      positions: ``[B, S]`` or ``[A, B, S]``.
      segment_ids: int32 ``[B, S]``, or None.
      count: int32 scalar.
    """

    layers: tuple[Kept, ...]
    positions: jax.Array
    segment_ids: jax.Array | None
    count: jax.Array

    @classmethod
    def empty(
        cls,
        model,
        batch: int,
        size: int,
        *,
        encoding=None,
        segments: bool = False,
        axes: int | None = None,
        dtype="int32",
    ) -> "Cache":
        """Room for ``size`` tokens of ``batch`` sequences.

        Args:
          model: the Transformer.
          batch: B.
          size: S.
          encoding: what the model will be evaluated under, if not its own encoding.
          segments: whether tokens will come with segment ids.
          axes: A, of positions ``[A, B, T]``; None for ``[B, T]``.
          dtype: of the positions, "int32" or "float32".
        """
        for name, value in (("batch", batch), ("size", size)):
            if value < 1:
                raise ValueError(f"{name}={value} must be at least 1")
        shape = (batch, size) if axes is None else (axes, batch, size)
        layers = model.layers if encoding is None else Layers.of(encoding)
        layers.check(model.num_layers)
        turns = model.num_layers // len(layers.pattern)
        head_dim = model.blocks.attention.head_dim
        num_kv_heads = model.blocks.attention.k.kernel.shape[-1] // head_dim
        model_dim = model.embedding.shape[-1]

        def zeros(*widths):
            return jnp.zeros((turns, batch, size, *widths), model.dtype)

        def kept(each):
            place = jnp.zeros((*shape[:-2], 1, 1), dtype)
            x = zeros(model_dim) if _reads(each, model_dim, place) else None
            return Kept(zeros(num_kv_heads, head_dim), zeros(num_kv_heads, head_dim), x)

        return cls(
            tuple(kept(layers.distinct[which]) for which in layers.pattern),
            jnp.zeros(shape, dtype),
            jnp.zeros((batch, size), jnp.int32) if segments else None,
            jnp.zeros((), jnp.int32),
        )

    @property
    def size(self) -> int:
        return self.positions.shape[-1]

    def with_places(self, positions, segment_ids, T: int) -> "Cache":
        """The next T slots at these positions, in these segments, their layers not yet kept.

        Slots not filled repeat the place of the last token, so that no length depends on them and
        no scheme finds them out of range. Attention hides them: their index is ahead.
        """
        self._check(positions, segment_ids, T)

        def place(slots, new):
            new = jnp.zeros_like(slots[..., :T]) + new
            slots = jax.lax.dynamic_update_slice_in_dim(slots, new, self.count, axis=-1)
            number = jax.lax.broadcasted_iota(jnp.int32, slots.shape, slots.ndim - 1)
            return jnp.where(number < self.count + T, slots, new[..., -1:])

        placed = place(self.positions, positions)
        segments = None if segment_ids is None else place(self.segment_ids, segment_ids)
        return dataclasses.replace(self, positions=placed, segment_ids=segments)

    def with_layers(self, new: tuple[Kept, ...], T: int) -> "Cache":
        """The next T slots filled with what the layers made of them."""
        pairs = zip(self.layers, new, strict=True)
        layers = tuple(slots.with_new(tokens, 0, self.count) for slots, tokens in pairs)
        return dataclasses.replace(self, layers=layers, count=self.count + T)

    def check_layers(self, layers: Layers, model_dim: int) -> None:
        """Refuses a pattern of other encodings than the cache was made for."""
        place = jnp.zeros((*self.positions.shape[:-2], 1, 1), self.positions.dtype)
        reads = [_reads(layers.distinct[which], model_dim, place) for which in layers.pattern]
        if reads != [kept.x is not None for kept in self.layers]:
            raise ValueError(
                f"the cache was made for a pattern of {len(self.layers)} encodings that read other "
                f"things than these {len(reads)}; pass the same encoding= to Cache.empty"
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


def _reads(encoding, model_dim: int, positions) -> bool:
    """Whether ``read`` makes anything of the layer's input."""
    if encoding.per_layer:
        encoding = jax.tree.map(lambda p: p[0], encoding)

    def read(x_BTD):
        return Tokens.of(encoding, positions).read(encoding, x_BTD).prepared

    program = jax.make_jaxpr(read)(jnp.zeros((1, 1, model_dim))).jaxpr
    used = [*program.outvars, *(each for step in program.eqns for each in step.invars)]
    return any(each is program.invars[0] for each in used)
