"""Tells Splash attention which keys a query sees, without a visit of all pairs.

Splash's own masks compare every pair of a block while a program is traced. This one compares the
ends of a block, and its pairs only where some of them are visible and others are not.
"""

import dataclasses
import functools
import operator
from typing import Any

import numpy as np
from jax.experimental.pallas.ops.tpu import splash_attention as library

from posenc_jax.attention.rule import Rule


def mask_of(rule: Rule, T: int, S: int) -> library.Mask:
    """Returns the mask of a rule for T queries and S keys, both in written order."""
    before: Any = None if rule.window is None else rule.window - 1  # no array, see splash_takes
    after: Any = 0 if rule.causal else rule.after
    if before is None and after is None and rule.chunk is None:
        return library.FullMask((T, S))
    return _Mask(T, S, before, after, rule.chunk)


@dataclasses.dataclass(frozen=True)
class _Mask(library.Mask):
    """Says which pairs are visible, as Splash asks for it: by blocks here, by places in its kernel.

    Attributes:
      queries, keys: how many there are.
      before, after: how many keys before and after its own place a query sees, or None for all.
      chunk: the size of the chunks, or None.
    """

    queries: int
    keys: int
    before: int | None
    after: int | None
    chunk: int | None

    @property
    def shape(self) -> tuple[int, int]:
        return self.queries, self.keys

    @property
    def q_sequence(self) -> np.ndarray:
        return np.arange(self.queries, dtype=np.int32)

    def mask_function(self, q, k):
        """Returns whether queries at the places ``q`` see the keys at ``k``."""
        conditions = []
        if self.before is not None:
            conditions.append(q - k <= self.before)
        if self.after is not None:
            conditions.append(k - q <= self.after)
        if self.chunk is not None:
            conditions.append(q // self.chunk == k // self.chunk)
        return functools.reduce(operator.and_, conditions)

    def __getitem__(self, block: tuple[slice, slice]) -> np.ndarray:
        """Returns the pairs of a block, or a single number where they are all alike."""
        q, k = (np.arange(side.start, side.stop) for side in block)
        nearest, farthest = q[0] - k[-1], q[-1] - k[0]
        sees_all, sees_none = [], []
        if self.before is not None:
            sees_all.append(farthest <= self.before)
            sees_none.append(nearest > self.before)
        if self.after is not None:
            sees_all.append(-nearest <= self.after)
            sees_none.append(-farthest > self.after)
        if self.chunk is not None:
            of_q, of_k = (side[[0, -1]] // self.chunk for side in (q, k))
            sees_all.append(of_q[0] == of_q[1] == of_k[0] == of_k[1])
            sees_none.append(of_q[1] < of_k[0] or of_k[1] < of_q[0])
        if any(sees_none) or all(sees_all):
            return np.full((1, 1), not any(sees_none))
        return self.mask_function(q[:, None], k[None])
