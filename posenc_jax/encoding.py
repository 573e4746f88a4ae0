"""The protocol: what a positional encoding may do to a Transformer, and nothing more.

A scheme subclasses :class:`Encoding` and overrides the hooks it needs, usually one. The base class
overrides nothing, which makes it a scheme too: NoPE.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from posenc_jax.gather import compares, rows


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Tokens:
    """What attention knows about one side, queries or keys, beside their content.

    Attributes:
      positions: where the tokens are, int or float32, ``[B, T]`` or ``[A, B, T]``; ``B`` may be 1
        (shared by the batch). Positions may repeat, skip, restart, be negative or fractional.
      segment_ids: int ``[B, T]`` or None; tokens of different segments do not see each other.
      prepared: what the encoding's ``prepare`` made of the positions, or its ``read`` made of the
        layer's input: arrays with the tokens along axis 1.
      index: the order the tokens came in, int32 ``[B, T]``, in any arrangement. Causality reads
        this, never positions. None is the order they are written in, ``0 .. T - 1``, which
        attention knows without looking and uses to leave out keys that no query may see.
    """

    positions: jax.Array
    segment_ids: jax.Array | None = None
    prepared: Any = None
    index: jax.Array | None = None

    @classmethod
    def of(cls, encoding, positions, segment_ids=None, length=None) -> "Tokens":
        """Tokens in their written order, prepared for ``encoding``: call it once per forward.

        ``length`` is the length a scheme may adapt to (dynamic NTK): a Python int, or an array
        that broadcasts against ``[B, T]``. Default: the largest position of a token's own
        sequence, or of its own segment, plus one, so that no document depends on its neighbours.
        """
        positions = check_positions(positions)
        if length is None:
            length = _own_length(positions, segment_ids)
        return cls(positions, segment_ids, encoding.prepare(positions, length))

    def read(self, encoding, x_BTD) -> "Tokens":
        """These tokens with what ``encoding`` reads in ``x_BTD``: call it once per layer.

        ``x_BTD`` is what the layer's queries and keys are projected from. Only data-dependent
        schemes look at it; for all others this returns the tokens as they are.
        """
        return dataclasses.replace(self, prepared=encoding.read(x_BTD, self))

    def part(self, start, count: int) -> "Tokens":
        """``count`` of these tokens, from the one written at ``start`` on, which may be traced."""

        def cut(x, axis=1):
            return jax.lax.dynamic_slice_in_dim(x, start, count, axis)

        index = start + jnp.arange(count, dtype=jnp.int32)[None]
        return Tokens(
            cut(self.positions, axis=self.positions.ndim - 1),
            None if self.segment_ids is None else cut(self.segment_ids),
            jax.tree.map(cut, self.prepared),
            index if self.index is None else cut(self.index),
        )

    def order(self) -> jax.Array:
        """``index``, written out."""
        if self.index is not None:
            return self.index
        return jnp.arange(self.positions.shape[-1], dtype=jnp.int32)[None]


def check_positions(positions) -> jax.Array:
    """``positions`` as an array, refused if their type cannot count (bfloat16 reads 257 as 256)."""
    positions = jnp.asarray(positions)
    is_counting = jnp.issubdtype(positions.dtype, jnp.integer) or positions.dtype == jnp.float32
    if not is_counting or positions.ndim not in (2, 3):
        raise ValueError(
            f"positions must be int or float32 of shape [B, T] or [A, B, T], not {positions.dtype} "
            f"of shape {positions.shape}; cast to int32 or float32, add a batch axis with [None]"
        )
    return positions


def _own_length(positions, segment_ids):
    if positions.ndim == 3:
        positions = positions.max(axis=0)
    if segment_ids is None:
        return positions.max(axis=-1, keepdims=True) + 1
    positions, segment_ids = jnp.broadcast_arrays(positions, segment_ids)
    # Sorted, a segment is one run, whatever order the tokens are laid out in.
    order = jnp.argsort(segment_ids, axis=-1)
    sorted_ids = jnp.take_along_axis(segment_ids, order, axis=-1)
    starts = sorted_ids[:, 1:] != sorted_ids[:, :-1]
    run = jnp.cumsum(jnp.pad(starts, ((0, 0), (1, 0))), axis=-1)
    run = jnp.take_along_axis(run, jnp.argsort(order, axis=-1), axis=-1)
    largest = jax.vmap(
        lambda last, number: jax.ops.segment_max(last, number, num_segments=last.size)[number]
    )
    return largest(positions, run) + 1


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Tile:
    """One rectangle of the attention matrix, and everything a scheme may read about it.

    Attributes:
      q: queries after ``rotate``, ``[B, T, H, C]``.
      k: keys after ``rotate``, ``[B, S, K, C]``.
      q_positions, k_positions: as in :class:`Tokens`.
      q_index, k_index: as in :class:`Tokens`.
      q_prepared, k_prepared: as in :class:`Tokens`.
      scale: what the products of queries and keys were multiplied by, usually ``1 / sqrt(C)``.
      heads: int32 ``[H]``, the *global* numbers of the heads in this tile. A scheme whose heads
        differ must index its parameters with them, or it is wrong where heads are sharded.
      num_heads: how many heads the whole model has (static).
    """

    q: jax.Array
    k: jax.Array
    q_positions: jax.Array
    k_positions: jax.Array
    q_index: jax.Array
    k_index: jax.Array
    q_prepared: Any
    k_prepared: Any
    scale: float | jax.Array
    heads: jax.Array
    num_heads: int = dataclasses.field(metadata={"static": True})

    def of_heads(self, values) -> jax.Array:
        """The rows of ``values``, one for each head of the model, that belong to this tile."""
        if values.shape[0] != self.num_heads:
            raise ValueError(
                f"the encoding was made for num_heads={values.shape[0]}, but attention has "
                f"{self.num_heads} query heads"
            )
        return rows(values, self.heads) if compares() else values[self.heads]

    def distance(self) -> jax.Array:
        """Query position minus key position, float32 ``[B, 1, T, S]``; positive looks back."""
        if self.q_positions.ndim != 2 or self.k_positions.ndim != 2:
            raise ValueError(
                "a distance needs one position axis, positions of shape [B, T], not "
                f"{self.q_positions.shape} and {self.k_positions.shape}; pass one axis of them"
            )
        # Subtract before the cast: two positions near 2^24 keep their exact distance.
        distance = self.q_positions[:, None, :, None] - self.k_positions[:, None, None, :]
        return distance.astype(jnp.float32)


class Encoding(nnx.Module):
    """No positional encoding (NoPE, 2305.19466), and the base class of every scheme.

    A causal decoder still tells order by how many tokens each position sees.

    Class attributes:
      per_layer: the paper gives each layer its own parameters; ``make(..., num_layers=n)`` then
        stacks them along a leading axis. ``prepare`` of such a scheme must not read parameters.
      shift_invariant: adding a constant to every position changes nothing.
      whole_rows: ``score`` needs every key that a query may see in one tile.
    """

    per_layer = False
    shift_invariant = True
    whole_rows = False

    def place(self, positions, key=None, length=None):
        """Positions in, positions out, before every other hook.

        ``key`` is a fresh one in every training step and None elsewhere; ``length`` as in
        ``Tokens.of``.
        """
        del key, length
        return positions

    def embed(self, x_BTD, positions):
        """Token embeddings in, token embeddings with positions out."""
        del positions
        return x_BTD

    def prepare(self, positions, length) -> Any:
        """Whatever ``rotate`` needs of the positions, any pytree; runs once per forward."""
        del positions, length

    def read(self, x_BTD, tokens: Tokens) -> Any:
        """The layer's input in, ``prepared`` of this layer out; runs once per layer.

        For schemes in which the content of the tokens between a query and a key decides how far
        apart they are (FoX, PaTH, Selective RoPE): their gates, transitions and angles come from
        the same input as queries and keys, which ``rotate`` and ``score`` do not see. Whatever
        looks at several tokens must stay within ``tokens.segment_ids``.
        """
        del x_BTD
        return tokens.prepared

    def rotate(self, x_BTHC, prepared, *, is_query: bool):
        """Queries or keys in, queries or keys out; both may come out wider than they went in."""
        del prepared, is_query
        return x_BTHC

    def score(self, logits_BHTS, tile: Tile):
        """Scaled float32 logits of one tile in, logits out."""
        del tile
        return logits_BHTS

    def mix(self, out_BTHC, weights_BHTS, tile: Tile):
        """The tile's weighted sum of values in, the same with values of positions added out.

        ``weights_BHTS`` are those of the sum, float32 and not normalised; what is added must be
        linear in them.
        """
        del weights_BHTS, tile
        return out_BTHC

    def aux_loss(self, key):
        """A training objective of the scheme's own, a scalar added to the loss."""
        del key
        return 0.0
