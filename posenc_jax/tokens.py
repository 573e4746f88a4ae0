"""Describes the tokens of a sequence for attention: their positions and their order.

Arrays keep the batch first and the tokens second, positions included: ``[B, T]``, or ``[B, T, A]``
for tokens that lie on several axes, such as the time, row and column of a patch.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from posenc_jax.checks import LONGEST, count_of, is_whole


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Tokens:
    """Holds all that attention knows of the queries, or of the keys, besides their vectors.

    Attributes:
      positions: where the tokens are, int32 or float32 ``[B, T]`` or ``[B, T, A]``. ``B`` may be 1,
        which means that the batch shares them. Positions may repeat, skip, restart, be negative or
        fractional.
      segment_ids: int ``[B, T]``, or None. Tokens of different segments do not see each other.
      index: int32 ``[B, T]``, the order in which the tokens were written, in any arrangement.
        Causality and windows read it, and never read positions. None means ``0 .. T - 1``.
      made: what an encoding made of the tokens, any pytree of arrays with the tokens along axis 1.
        Only hooks of the encoding read it.
      consecutive: whether each position is known to be one more than the position before it
        (static), so that a bias by distance has T + S - 1 values and not T * S.
    """

    positions: jax.Array
    segment_ids: jax.Array | None = None
    index: jax.Array | None = None
    made: Any = None
    consecutive: bool = dataclasses.field(default=False, metadata={"static": True})

    @property
    def count(self) -> int:
        """Returns the number of tokens, T."""
        return self.positions.shape[1]

    def moved_to(self, positions: jax.Array) -> "Tokens":
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
