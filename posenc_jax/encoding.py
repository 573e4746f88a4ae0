"""Defines the hooks through which a positional encoding acts on a Transformer.

A scheme subclasses :class:`Encoding` and overrides the hooks that it needs, usually one. The base
class overrides none of them and is itself a scheme: NoPE.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from posenc_jax.lookup import compares, rows
from posenc_jax.tokens import Tokens, count_of

HOOKS = (
    "place",
    "prepare",
    "embed",
    "read",
    "rotate",
    "turn_values",
    "turn_back",
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
      is_query: whether the heads are those of queries (static).
    """

    heads: jax.Array | None
    num_heads: int = dataclasses.field(metadata={"static": True})
    num_kv_heads: int = dataclasses.field(metadata={"static": True})
    is_query: bool = dataclasses.field(metadata={"static": True})

    def of_heads(self, values: jax.Array) -> jax.Array:
        """Returns the rows of ``values``, one for each query head of the model, for these heads."""
        if not self.is_query:
            raise ValueError("of_heads is for queries: keys have kv heads, see of_kv_heads")
        _check_rows(values, self.num_heads, "num_heads", "query heads")
        return values if self.heads is None else _rows_of(values, self.heads)

    def of_kv_heads(self, values: jax.Array) -> jax.Array:
        """Returns the rows of ``values``, one for each kv head of the model, for these heads.

        A query head reads the row of the kv head that it attends to. Keys that were repeated for
        more heads than ``values`` has rows read the row of the head they were repeated from.
        """
        if self.num_kv_heads % values.shape[0]:
            _check_rows(values, self.num_kv_heads, "num_kv_heads", "kv heads")
        heads = self.num_heads if self.is_query else self.num_kv_heads
        group = heads // values.shape[0]
        if self.heads is not None:
            return _rows_of(values, self.heads // group)
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
    """

    q: jax.Array
    k: jax.Array
    q_tokens: Tokens
    k_tokens: Tokens
    scale: float | jax.Array
    heads: jax.Array | None
    num_heads: int = dataclasses.field(metadata={"static": True})

    def of_heads(self, values: jax.Array) -> jax.Array:
        """Returns the rows of ``values``, one for each query head of the model, for this tile."""
        _check_rows(values, self.num_heads, "num_heads", "query heads")
        return values if self.heads is None else _rows_of(values, self.heads)

    def distance(self) -> jax.Array:
        """Returns query position minus key position, float32 ``[B, 1, T, S]``.

        A positive distance looks back. Where int32 cannot hold how far apart whole positions are,
        attention raises an error, or gives NaN under ``jax.jit``.
        """
        q_positions, k_positions = self.q_tokens.positions, self.k_tokens.positions
        if q_positions.ndim != 2 or k_positions.ndim != 2:
            raise ValueError(
                "a distance needs one position axis, positions of shape [B, T], not "
                f"{q_positions.shape} and {k_positions.shape}; pass one axis of them"
            )
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
        then stacks them along a leading axis. ``place``, ``prepare`` and ``embed`` of such a scheme
        must not read parameters, because they run once for all layers.
      whole_rows: whether ``score`` needs every key that a query may see in one tile.
      extent: a promise that ``score`` and ``mix`` change nothing where the distance (query position
        minus key position) is below 0, or is ``extent`` or more. Tiles that lie outside skip both
        hooks. None, which promises nothing, is always right.
      reads_order: whether a logit depends on the order in which tokens were written (``index``).
        If so, queries and keys that differ in number need tokens with an ``index``, even without a
        causal mask. None means True where ``read`` is overridden, because ``read`` usually looks
        at earlier tokens, and False elsewhere.
      mixes_keys: whether ``rotate`` and ``turn_values`` combine several keys or values, so that
        none of them can be turned alone.

    Attributes:
      stacked: the number of layers whose parameters this instance holds, or None if it holds those
        of one layer, or one set that all layers share. ``of_layer`` returns one layer's encoding.
      over_shared: whether the parameters of an encoding beneath are not stacked, because all layers
        share them (``make`` with ``over=`` an encoding).
    """

    per_layer = False
    whole_rows = False
    extent: int | None = None
    reads_order: bool | None = None
    mixes_keys = False
    stacked: int | None = None
    over_shared = False

    @property
    def adapts(self) -> bool:
        """Returns whether ``place`` or ``prepare`` depends on the length of the sequence.

        If so, a cache stores keys as they are before ``rotate`` and rotates all of them again for
        every new token, unless it is given one fixed length. Otherwise it rotates each key once.
        The default is True, the safe answer, for a scheme that overrides ``place`` or ``prepare``.
        A scheme that overrides them without using the length sets ``adapts = False``.
        """
        return not self.hooks().isdisjoint({"place", "prepare"})

    @property
    def resumes(self) -> bool:
        """Says whether ``resume`` does what ``read`` does, so that a cache may call it instead.

        It does not where ``start`` is None, or where a subclass overrides ``read`` alone.
        """
        read, resume = (
            next(i for i, each in enumerate(type(self).__mro__) if name in vars(each))
            for name in ("read", "resume")
        )
        return resume <= read and self.start(1) is not None

    def hooks(self) -> frozenset[str]:
        """Returns the names of the hooks that this encoding overrides."""
        return frozenset(
            name for name in HOOKS if getattr(type(self), name) is not getattr(Encoding, name)
        )

    @property
    def prepared_by(self) -> "Encoding":
        """Returns the encoding that makes ``tokens.prepared``: this one, or one beneath it."""
        return self

    def turns_like(self, other: "Encoding") -> bool:
        """Returns whether this scheme computes what ``other`` does, given what ``other`` prepared.

        One program can then run the layers of both.
        """
        return self is other

    def of_layer(self, layer: int) -> "Encoding":
        """Returns the encoding of one layer; the same encoding where layers share parameters.

        The parameters are NaN where a traced ``layer`` is none of those that are stacked.
        """
        if self.stacked is None:
            return self
        if not isinstance(layer, jax.core.Tracer):
            layer = count_of("layer", layer, 0, self.stacked - 1)
        return self._of_one_layer(layer).unstacked()

    def _of_one_layer(self, layer) -> "Encoding":
        return jax.tree.map(functools.partial(_row, layer=layer), self)

    def unstacked(self) -> "Encoding":
        """Returns this encoding as one layer's own, inside a ``scan`` or ``vmap`` over layers."""
        leaves, structure = jax.tree.flatten(self)
        one = jax.tree.unflatten(structure, leaves)
        one.stacked = None
        return one

    def place(
        self,
        positions: jax.Array,
        key: jax.Array | None = None,
        length: int | jax.Array | None = None,
    ) -> jax.Array:
        """Takes positions and returns positions, before every other hook.

        ``key`` is a fresh one in every training step and None elsewhere; ``length`` is that of
        ``Tokens.of``.
        """
        del key, length
        return positions

    def prepare(self, positions: jax.Array, length: float | jax.Array) -> Any:
        """Returns whatever ``rotate`` and ``score`` need of the positions, once per forward pass.

        It is any pytree of arrays with the tokens along axis 1, found in ``tokens.prepared``.
        ``length`` is a number, or a float32 array that broadcasts against ``[B, T]``.
        """
        del positions, length

    def embed(self, x_BTD: jax.Array, tokens: Tokens) -> jax.Array:
        """Takes token embeddings and returns them with positions added."""
        del tokens
        return x_BTD

    def read(self, x_BTD: jax.Array, tokens: Tokens) -> Any:
        """Takes a layer's input and returns ``tokens.prepared`` of this layer.

        It is for schemes in which the content of the tokens between a query and a key decides how
        far apart they are (FoX, PaTH, Selective RoPE): their gates, transitions and angles come
        from the same input as queries and keys, which ``rotate`` and ``score`` do not see. Whatever
        looks at several tokens must stay within ``tokens.segment_ids``.
        """
        del x_BTD
        return tokens.prepared

    def of_keys(self, prepared: Any) -> Any:
        """Takes ``tokens.prepared`` and returns the part that ``score`` and ``mix`` read of keys.

        Arrays that they read of queries only can be left out, to spare copies in tiles and caches.
        Called on such a part, which a cache has kept, it returns the part as it is.
        """
        return prepared

    def start(self, batch: int) -> Any:
        """Returns the state of ``resume`` before any token: arrays ``[batch, ...]``.

        None says that the scheme cannot resume. A cache then keeps the layer's input and calls
        ``read`` with all tokens so far for every new token.
        """
        del batch

    def resume(self, x_BTD: jax.Array, tokens: Tokens, state: Any) -> tuple[Any, Any]:
        """Does what ``read`` does, for tokens that follow those summed up in ``state``.

        The tokens are in the order in which they were written, and without segments. Returns
        ``tokens.prepared`` and the state after them.
        """
        raise NotImplementedError

    def rotate(self, x_BTHC: jax.Array, tokens: Tokens, side: Side) -> jax.Array:
        """Takes queries or keys and returns them turned, possibly with more channels."""
        del tokens, side
        return x_BTHC

    def turn_values(self, v_BSKC: jax.Array, tokens: Tokens, side: Side) -> jax.Array:
        """Takes the values of the keys and returns them turned, before they are summed."""
        del tokens, side
        return v_BSKC

    def turn_back(self, out_BTHC: jax.Array, tokens: Tokens, side: Side) -> jax.Array:
        """Takes the attended sums of the queries and returns them turned back."""
        del tokens, side
        return out_BTHC

    def score(self, logits_BHTS: jax.Array, tile: Tile) -> jax.Array:
        """Takes the scaled float32 logits of one tile and returns logits."""
        del tile
        return logits_BHTS

    def mix(self, out_BTHC: jax.Array, weights_BHTS: jax.Array, tile: Tile) -> jax.Array:
        """Takes a tile's weighted sum of values and returns it with a positional term added.

        ``weights_BHTS`` are float32 and not normalised; the term must be linear in them.
        """
        del weights_BHTS, tile
        return out_BTHC

    def aux_loss(self, key: jax.Array) -> float | jax.Array:
        """Returns a training objective of the scheme's own, a scalar that is added to the loss."""
        del key
        return 0.0


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class HeadShard:
    """Gives an encoding some of a model's query heads, for ``attend`` inside ``shard_map``.

    Attributes:
      encoding: the scheme, with the parameters of every head.
      heads: int32 ``[H]``, the global numbers of the query heads that attention is given, all
        different. Heads that share a kv head must be those of one kv head of the model. Where
        numbers are traced, those that cannot be so give NaN.
      num_heads: how many query heads the whole model has (static).
    """

    encoding: Encoding
    heads: jax.Array
    num_heads: int = dataclasses.field(metadata={"static": True})


def _row(stacked: jax.Array, layer: int | jax.Array) -> jax.Array:
    """Returns one layer's part of a parameter, NaN where a traced ``layer`` is out of range."""
    own = stacked[layer]
    if not isinstance(layer, jax.core.Tracer):
        return own
    return jnp.where((layer >= 0) & (layer < len(stacked)), own, jnp.nan)


def check_encoding(encoding: Any) -> None:
    """Checks that ``encoding`` is the encoding of one layer."""
    if isinstance(encoding, Encoding):
        return
    is_class = isinstance(encoding, type)
    kind = f"the class {encoding.__name__}" if is_class else type(encoding).__name__
    raise ValueError(
        f"encoding must be an Encoding, as posenc_jax.make gives it, not {kind}; of Layers take "
        "one layer's, layers.at(i)[0], and within a HeadShard its .encoding"
    )


def _rows_of(values: jax.Array, heads):
    return rows(values, heads) if compares() else values[heads]


def _check_rows(values: jax.Array, count, argument, kind):
    if values.shape[0] != count:
        raise ValueError(
            f"the encoding was made for {argument}={values.shape[0]}, but attention has {count} "
            f"{kind}; pass {argument}={count} to make"
        )
