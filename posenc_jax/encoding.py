"""Defines the hooks through which a positional encoding acts on a Transformer.

A scheme subclasses :class:`Encoding` and overrides the hooks that it needs, usually one. The base
class overrides none of them and is itself a scheme: NoPE. :class:`Here` is an encoding at some
tokens, through which models call the hooks.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from posenc_jax.checks import (
    check_arrays,
    check_input,
    check_key,
    check_made,
    check_one_layer,
    check_shard,
    check_side,
    checked_length,
    checked_numbers,
    checked_positions,
    count_of,
)
from posenc_jax.keys import Keys, structure
from posenc_jax.layered import Layered
from posenc_jax.pairs import Pairs, Side
from posenc_jax.tokens import Tokens, is_consecutive

HOOKS = (
    "moved",
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


# The length of a sequence, a number or float32 that broadcasts against [B, T]; None is unknown.
Length = float | jax.Array | None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Here:
    """Holds an encoding at some tokens, which ``encoding.at(positions)`` returns.

    It is a pytree that one forward pass shares between layers: what the encoding computes of
    positions alone is in it, and is computed once.

    Attributes:
      encoding: the scheme, with the parameters of one layer, of all layers, or stacked.
      tokens: the tokens, with what the scheme made of them.
      heads: int32 ``[H]``, the numbers in the whole model of the query heads that attention is
        given; None for all of them.
      num_heads: how many query heads the whole model has, where ``heads`` are given (static).
      fixed: whether the length that the scheme adapts to stays the same when more tokens follow
        (static).
    """

    encoding: "Encoding"
    tokens: Tokens
    heads: jax.Array | None = None
    num_heads: int | None = dataclasses.field(default=None, metadata={"static": True})
    fixed: bool = dataclasses.field(default=True, metadata={"static": True})

    def embed(self, x_BTD: jax.Array) -> jax.Array:
        """Takes token embeddings and returns them with positions added, where the scheme does."""
        return self.encoding.embed(x_BTD, self.tokens)

    def of_layer(self, layer: int | jax.Array) -> "Here":
        """Returns this with the parameters of one layer, where layers have their own."""
        return dataclasses.replace(self, encoding=self.encoding.of_layer(layer))

    def of_heads(self, heads: jax.Array, num_heads: int) -> "Here":
        """Returns this for some of a model's query heads, as attention inside ``shard_map`` needs.

        Args:
          heads: int32 ``[H]``, the numbers of the query heads that attention is given, all
            different. Heads that share a kv head here must share one in the model.
          num_heads: how many query heads the whole model has.
        """
        num_heads = count_of("num_heads", num_heads)
        return dataclasses.replace(self, heads=jnp.asarray(heads), num_heads=num_heads)

    def part(self, start: int | jax.Array, count: int) -> "Here":
        """Returns this at ``count`` of its tokens, from number ``start`` on; see ``Tokens.part``.

        The part knows its place in the whole: ``attend(here.part(9, 1), q, here.keys(k, v))`` lets
        the tenth token attend to all tokens up to itself.
        """
        return dataclasses.replace(self, tokens=self.tokens.part(start, count))

    def see(self, x_BTD: jax.Array, state: Any = None) -> tuple["Here", Any]:
        """Returns this after the scheme has read a layer's input, and the scheme's state.

        ``attend(..., x=)`` does so for self-attention. Under a scheme that does not depend on
        content both come back unchanged. Where the queries are a part of the tokens, see all tokens
        first and take the part afterwards.

        Args:
          x_BTD: the layer's input, which queries and keys are projected from.
          state: what ``see`` returned for the tokens before these; None where there are none.

        Returns:
          The result, whose type is ``Seen`` under a scheme that reads content; and the state after
          the last token, arrays ``[B, ...]``, or None where the scheme must see all tokens at once.

        Raises:
          ValueError: the input is not one vector for each token, or was seen already; or the
            encoding holds the parameters of several layers.
        """
        if not self.encoding.overrides("observe"):
            return self, state
        check_one_layer(self.encoding)
        check_input(self.encoding, self.tokens, x_BTD, state)
        made, state = self.encoding.observe(x_BTD, self.tokens, state)
        check_made(self.encoding, made, self.tokens.count)
        tokens = dataclasses.replace(self.tokens, made=made)
        resumes = state is not None and tokens.segment_ids is None
        return Seen(self.encoding, tokens, self.heads, self.num_heads, self.fixed, resumes), state

    def keys(self, k_BSKC: jax.Array, v_BSKC: jax.Array) -> Keys:
        """Rotates keys and values, not yet rotated, for queries of any tokens to attend to.

        Raises:
          ValueError: the scheme reads the layer's input, which ``see`` was not given; or an
            argument does not fit the others.
        """
        check_arrays(k=k_BSKC, v=v_BSKC)
        check_here(self)
        check_side(self.tokens, "k", k_BSKC)
        if self.heads is not None and self.num_heads is not None:
            check_shard(self.heads, len(self.heads), k_BSKC.shape[2], self.num_heads)
        return rotated(self, k_BSKC, v_BSKC, lasts=self.lasts())

    def lasts(self) -> bool:
        """Returns whether keys stay right when more tokens follow.

        They do not under a scheme that adapts to the length of the sequence, unless ``at`` was
        given one length, and under a scheme that must see all tokens at once.
        """
        if self.encoding.mixes_keys:
            return False
        return self.fixed or not self.encoding.reads_length()

    def side(self, num_heads: int, is_query: bool) -> Side:
        """Returns a side of attention with so many query heads, or kv heads."""
        if self.heads is None or self.num_heads is None:
            return Side(None, num_heads, is_query)
        if is_query:
            return Side(self.heads, self.num_heads, is_query)
        group = len(self.heads) // num_heads
        return Side(self.heads[::group] // group, self.num_heads // group, is_query)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Seen(Here):
    """Holds an encoding at tokens whose content it has read, in one layer; see ``Here.see``.

    Attributes:
      resumes: whether the scheme left a state, from which it sees the tokens that follow (static).
    """

    resumes: bool = dataclasses.field(default=True, metadata={"static": True})

    def see(self, x_BTD: jax.Array, state: Any = None) -> tuple["Here", Any]:
        """Refuses a second input: each layer starts from what ``encoding.at`` returned."""
        raise ValueError(
            f"this {type(self.encoding).__name__} has seen a layer's input already: in each layer "
            "pass x= with what encoding.at gave, here.of_layer(i)"
        )

    def lasts(self) -> bool:
        return self.resumes and super().lasts()


def rotated(here: Here, k_BSKC: Any, v_BSKC: jax.Array, *, lasts: bool = False) -> Keys:
    """Returns ``here.keys(k, v)`` without its checks; where only values are read, k is None."""
    encoding, tokens, side = here.encoding, here.tokens, here.side(v_BSKC.shape[2], is_query=False)
    if k_BSKC is not None:
        k_BSKC = encoding.rotate(k_BSKC, tokens, side)
    return Keys(
        k_BSKC,
        encoding.rotate_values(v_BSKC, tokens, side),
        dataclasses.replace(tokens, made=encoding.kept(tokens.made)),
        made_by=structure(encoding),
        lasts=lasts,
    )


def check_here(here: Any) -> None:
    """Checks that ``here`` is an encoding at tokens, ready for attention."""
    if not isinstance(here, Here):
        raise ValueError(
            f"the first argument must be an encoding at its tokens, encoding.at(positions), not "
            f"{type(here).__name__}"
        )
    check_one_layer(here.encoding)
    check_overrides(here.encoding)
    if here.encoding.overrides("observe") and not isinstance(here, Seen):
        raise ValueError(
            f"{type(here.encoding).__name__} reads the layer's input: pass attend(..., x=x_BTD), "
            "the array [B, T, D] that queries and keys are projected from; or call here.see(x_BTD)"
        )


class Encoding(Layered):
    r"""Adds no position at all (NoPE), and is the base class of every scheme.

    https://arxiv.org/abs/2305.19466

    $$ z_{mn} = \frac{q_m \cdot k_n}{\sqrt d} $$

    A causal decoder can still infer the order from how many tokens each position sees.

    Class attributes:
      per_layer: whether the paper gives each layer its own parameters, which ``of_layers`` stacks
        along a leading axis. ``prepare`` and ``embed`` of such a scheme must not read parameters,
        because they run once for all layers.
      whole_rows: whether ``score`` needs every key that a query may see at once.
      soft_cap: the bound c of a scheme whose ``score`` is c tanh(z / c) and no more, which some
        kernels compute; None for every other scheme.
      mixes_keys: whether ``rotate`` mixes a key with keys of other tokens, so that the tokens that
        follow cannot be rotated by themselves.
    """

    whole_rows = False
    soft_cap: float | None = None
    mixes_keys = False

    def overrides(self, hook: str) -> bool:
        """Returns whether this encoding overrides the hook of this name."""
        return getattr(type(self), hook) is not getattr(Encoding, hook)

    def at(
        self,
        positions: Any,
        segment_ids: Any = None,
        *,
        index: Any = None,
        length: Length = None,
        key: jax.Array | None = None,
    ) -> Here:
        """Returns this encoding at some tokens; call it once in each forward pass.

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
        fixed = isinstance(length, int | np.integer)
        if length is None and consecutive and segment_ids is None:
            length = last + 1
        tokens, length = self.moved(tokens, length, key)
        made = self.prepare(tokens, length)
        check_made(self, made, tokens.count)
        return Here(self, dataclasses.replace(tokens, made=made), fixed=fixed)

    def reads_length(self) -> bool:
        """Returns whether what ``at`` returns depends on the length of the sequence.

        If so, keys must be rotated again for every token that follows, unless ``at`` is given one
        fixed length.
        """
        if not (self.overrides("moved") or self.overrides("prepare")):
            return False

        def tokens(encoding, length):
            return encoding.at(np.zeros((1, 2), np.int32), length=length).tokens

        return reads_last(tokens, self, np.ones((1, 1), np.float32))

    def moved(self, tokens: Tokens, length: Length, key: jax.Array | None) -> tuple[Tokens, Length]:
        """Takes new tokens and their length, and returns both where the scheme moves positions.

        The result is usually ``tokens.moved_to(positions), length``.

        Args:
          tokens: positions, segments and index.
          length: see ``prepare``. A scheme whose positions say nothing of the length, because they
            are drawn, returns the ``tokens.length(length)`` of the tokens before it moved them.
          key: a random key, fresh in every training step, and None elsewhere.
        """
        return tokens, length

    def prepare(self, tokens: Tokens, length: Length) -> Any:
        """Takes new tokens and returns what is computed of them once in a forward pass.

        The result is any pytree of arrays with the tokens along axis 1; hooks find it in
        ``tokens.made``.

        Args:
          tokens: positions, segments and index.
          length: the ``length`` of ``at``, a number or a float32 array that broadcasts against
            ``[B, T]``; None where each sequence or segment has its own length. A scheme that adapts
            to the length reads it by ``tokens.length(length)``, which finds the lengths that are
            not given. Plain text has its length here, a number, even if ``at`` was not given one.
        """
        return None

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
          tokens: its tokens, with what ``prepare`` made of them.
          state: the state that the tokens before these left, or None where there are none. With a
            state the tokens are in the order in which they were written, and without segments.

        Returns:
          The new ``tokens.made``, arrays with the tokens along axis 1; and the state after the last
          token, arrays ``[B, ...]`` that are zeros before the first. The state is None in a scheme
          that must see all tokens at once. A cache then keeps the layer's input, and sees and
          rotates all tokens so far for every new token.
        """
        return tokens.made, ()

    def kept(self, made: Any) -> Any:
        """Takes ``tokens.made`` and returns the part that ``score`` and ``mix`` read of keys.

        By default it is all, or nothing if the scheme overrides neither. A scheme that reads less
        overrides this, to spare copies in tiles and caches.
        """
        return made if self.overrides("score") or self.overrides("mix") else None

    def rotate(self, x_BTHC: jax.Array, tokens: Tokens, side: Side) -> jax.Array:
        """Takes queries or keys and returns them rotated, possibly with more channels."""
        return x_BTHC

    def rotate_values(self, v_BSKC: jax.Array, tokens: Tokens, side: Side) -> jax.Array:
        """Takes the values of the keys and returns them rotated, before they are summed."""
        return v_BSKC

    def rotate_back(self, out_BTHC: jax.Array, tokens: Tokens, side: Side) -> jax.Array:
        """Takes the attended sums of the queries and returns them rotated back."""
        return out_BTHC

    def score(self, logits_BHTS: jax.Array, pairs: Pairs) -> jax.Array:
        """Takes the scaled float32 logits of some pairs and returns logits."""
        return logits_BHTS

    def mix(self, out_BTHC: jax.Array, weights_BHTS: jax.Array, pairs: Pairs) -> jax.Array:
        """Takes a weighted sum of values and returns it with a positional term added.

        ``weights_BHTS`` are float32 and not normalised; the term must be linear in them, and may
        depend on the tokens of the pairs, but not on their queries and keys.
        """
        return out_BTHC

    def aux_loss(self, key: jax.Array) -> float | jax.Array:
        """Returns the scheme's training objective, a scalar that is added to the loss."""
        return 0.0


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
    if type(encoding) is not Encoding and not any(map(encoding.overrides, HOOKS)):
        raise ValueError(
            f"{type(encoding).__name__} overrides no hook, so it would have no effect: is a hook "
            f"misspelt? The hooks are {', '.join(HOOKS)}"
        )
