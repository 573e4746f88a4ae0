"""Describes the tokens of a sequence for attention: their positions and their order.

Arrays keep the batch first and the tokens second, positions included: ``[B, T]``, or ``[B, T, A]``
for tokens that lie on several axes, such as the time, row and column of a patch.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from posenc_jax.checks import LONGEST, check_input, check_made, check_one_layer, count_of, is_whole


@dataclasses.dataclass(frozen=True)
class Stamp:
    """Says which encoding made ``Tokens.made``, and up to which stage; attention checks both."""

    made_by: Any = None  # the ``structure`` of the encoding, or None where it made nothing
    # "prepared" once per forward pass, "observed" in a layer whose input the encoding read, or
    # "rotated" for keys and values that are rotated already.
    stage: str = "prepared"
    # Whether the length that the encoding adapts to stays the same when more tokens follow.
    fixed: bool = True
    # Whether the encoding left a state, from which it observes the tokens that follow.
    resumes: bool = True


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Tokens:
    """Holds all that attention knows of the queries, or of the keys, besides their content.

    ``encoding.tokens(positions)`` makes them, once per forward pass.

    Attributes:
      positions: where the tokens are, int32 or float32 ``[B, T]`` or ``[B, T, A]``. ``B`` may be 1,
        which means that the batch shares them. Positions may repeat, skip, restart, be negative or
        fractional.
      segment_ids: int ``[B, T]``, or None. Tokens of different segments do not see each other.
      index: int32 ``[B, T]``, the order in which the tokens were written, in any arrangement.
        Causality and windows read it, and never read positions. None means ``0 .. T - 1``.
      made: what the encoding made of the tokens, any pytree of arrays with the tokens along axis 1.
        Only hooks of the encoding read it.
      consecutive: whether each position is known to be one more than the position before it
        (static), so that a bias by distance has T + S - 1 values and not T * S.
      stamp: who made ``made`` (static).
    """

    positions: jax.Array
    segment_ids: jax.Array | None = None
    index: jax.Array | None = None
    made: Any = None
    consecutive: bool = dataclasses.field(default=False, metadata={"static": True})
    stamp: Stamp = dataclasses.field(default=Stamp(), metadata={"static": True})

    @property
    def count(self) -> int:
        """Returns the number of tokens, T."""
        return self.positions.shape[1]

    def having(self, made: Any) -> "Tokens":
        """Returns these tokens with ``made``, the arrays that an encoding made of them."""
        return dataclasses.replace(self, made=made)

    def at(self, positions: jax.Array) -> "Tokens":
        """Returns these tokens at other positions, which need not be consecutive."""
        if positions is self.positions:
            return self
        return dataclasses.replace(self, positions=positions, consecutive=False)

    def length(self, given: float | jax.Array | None = None) -> float | jax.Array:
        """Returns the ``given`` length; where it is None, the length of each token's sequence.

        The length of a sequence, or of a segment, is one more than its largest position, exact up
        to ``LONGEST``: float32 ``[B, 1]``, or ``[B, T]`` where there are segments. A larger one is
        NaN, because such a position marks padding, or is a time, and gives no length to adapt to.
        """
        if given is not None:
            return given
        positions = self.positions.max(axis=-1) if self.positions.ndim == 3 else self.positions
        if self.segment_ids is None:
            largest = positions.max(axis=-1, keepdims=True)
        else:
            largest = _largest_of_segments(*jnp.broadcast_arrays(positions, self.segment_ids))
        return jnp.where(largest < LONGEST, largest.astype(jnp.float32) + 1, jnp.nan)

    def observed(self, encoding: Any, x_BTD: jax.Array) -> "Tokens":
        """Returns these tokens after ``encoding`` has observed a layer's input ``x_BTD``.

        ``attend(..., x=)`` does so for self-attention. Where queries are a part of the tokens,
        observe all tokens first and take the part afterwards. Under a scheme that does not depend
        on content the tokens come back unchanged.

        Raises:
          ValueError: these tokens were observed already, for instance in the layer before; the
            input is not one vector for each token; or the encoding holds the parameters of several
            layers.
        """
        if "observe" not in encoding.hooks():
            return self
        check_one_layer(encoding)
        check_tokens("tokens", self, encoding)
        check_input(encoding, self, x_BTD)
        return self.resumed(encoding, x_BTD, None)[0]

    def resumed(self, encoding: Any, x_BTD: jax.Array, state: Any) -> tuple["Tokens", Any]:
        """Returns what ``observed`` does, without its checks, and the state after these tokens.

        ``state`` is the encoding's state after the tokens before these, or None.
        """
        made, state = encoding.observe(x_BTD, self, state)
        check_made(encoding, made, self.count)
        stamp = Stamp(structure(encoding), "observed", self.stamp.fixed, state is not None)
        return dataclasses.replace(self, made=made, stamp=stamp), state

    def rotated(self) -> "Tokens":
        """Returns the tokens of keys and values that ``rotate_keys`` has rotated."""
        return dataclasses.replace(self, stamp=dataclasses.replace(self.stamp, stage="rotated"))

    def part(self, start: int | jax.Array, count: int) -> "Tokens":
        """Returns ``count`` of these tokens, from number ``start`` on.

        The part keeps its ``index`` in the whole, so new queries can attend to all tokens so far. A
        traced ``start`` is clipped to the valid range, as ``lax.dynamic_slice`` does.

        Raises:
          ValueError: there are no such tokens.
        """
        count = count_of("count", count)
        last = self.count - count
        if is_whole(start) and isinstance(start, jax.core.Tracer):
            start = jnp.clip(start, 0, last)
        elif not is_whole(start) or not 0 <= int(start) <= last:
            fix = f"the last {count} are part({last}, {count})" if last >= 0 else "take fewer"
            raise ValueError(
                f"start={start!r} and count={count} must be within the {self.count} tokens: {fix}"
            )
        part = jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, start, count, axis=1), self)
        if self.index is not None:
            return part
        return dataclasses.replace(part, index=start + jnp.arange(count, dtype=jnp.int32)[None])

    def order(self) -> jax.Array:
        """Returns ``index``, written out where it is None."""
        if self.index is not None:
            return self.index
        return jnp.arange(self.count, dtype=jnp.int32)[None]


def check_tokens(name: str, tokens: Any, encoding: Any) -> None:
    """Checks that ``encoding`` has made ``tokens``; errors call them ``name``."""
    if not isinstance(tokens, Tokens):
        raise ValueError(
            f"{name} must be Tokens, not {type(tokens).__name__}: pass encoding.tokens(positions)"
        )
    hooks, made_by = encoding.hooks(), tokens.stamp.made_by
    if "prepare" in hooks and tokens.stamp == Stamp():
        raise ValueError(
            f"{name} were not prepared for {type(encoding).__name__}: make them by "
            "encoding.tokens(positions)"
        )
    reads = not hooks.isdisjoint({"prepare", "observe"})
    if reads and made_by is not None and made_by != structure(encoding):
        raise ValueError(
            f"{name} were made for another encoding than this {type(encoding).__name__}, or "
            "for it with other keywords: where layers have several encodings, make tokens for "
            "each, encoding.tokens(positions)"
        )


def structure(encoding: Any) -> tuple[Any]:
    """Returns the class and keywords of an encoding, the same for all of its layers.

    They are in a tuple, because JAX's structures cannot be compared with None.
    """
    layer = encoding if encoding.stacked is None else encoding.unstacked()
    return (jax.tree.structure(layer),)


def is_consecutive(positions: Any) -> bool:
    """Returns whether NumPy ``positions`` are one row of whole numbers that count up by one.

    The answer is False for other arrays, whose values are not known while a program is traced.
    ``positions.text`` returns NumPy arrays for this reason.
    """
    is_row = isinstance(positions, np.ndarray) and positions.ndim == 2 and len(positions) == 1
    if not is_row or not positions.size:
        return False
    return positions.dtype.kind in "iu" and bool((np.diff(positions.astype(np.int64)) == 1).all())


def _largest_of_segments(positions, segment_ids):
    """Returns the largest position of each token's segment, ``[B, T]``."""
    # Sorting makes each segment one run, in whatever order the tokens are laid out.
    order = jnp.argsort(segment_ids, axis=-1)
    sorted_ids = jnp.take_along_axis(segment_ids, order, axis=-1)
    starts = sorted_ids[:, 1:] != sorted_ids[:, :-1]
    run = jnp.cumsum(jnp.pad(starts, ((0, 0), (1, 0))), axis=-1)
    run = jnp.take_along_axis(run, jnp.argsort(order, axis=-1), axis=-1)
    largest = jax.vmap(
        lambda last, number: jax.ops.segment_max(last, number, num_segments=last.size)[number]
    )
    return largest(positions, run)
