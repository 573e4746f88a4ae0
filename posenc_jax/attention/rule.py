"""Says which keys a query may see, and holds the sinks that it may attend to instead."""

import dataclasses
from typing import Any

import jax

from posenc_jax.fields import count_of, is_whole


@dataclasses.dataclass(frozen=True)
class Chunks:
    """Describes a window by chunks: a query sees the keys of its own chunk (Llama 4).

    Args:
      size: number of tokens in a chunk. The first chunk begins with the first token; in packed
        documents and after padding, with the first token of each segment. Tokens are counted by
        their order, so tokens of other segments that lie between those of a segment count too.
    """

    size: int

    def __post_init__(self):
        count_of("size", self.size)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Rule:
    """Says which keys a query may see by the order of the tokens; segments hide further ones.

    Attributes:
      window: a query sees only keys whose index is smaller than its own by less than this. It is
        an int, an int array ``[]`` that may be traced, or None to see all.
      causal: whether keys with a larger index than the query's are hidden (static).
      in_order: whether queries and keys are the same number of tokens, both laid out in the order
        they were written in (static).
      chunk: the number of tokens in a chunk; a query sees only keys of its own chunk. None means
        no chunks (static).
      sinks: one more logit for each query, with no key and no value: float32 ``[B, T, H]``, whose
        B and T may be 1, or None (``sinks.py``).
    """

    window: int | jax.Array | None
    causal: bool = dataclasses.field(metadata={"static": True})
    in_order: bool = dataclasses.field(metadata={"static": True})
    chunk: int | None = dataclasses.field(default=None, metadata={"static": True})
    sinks: jax.Array | None = None

    def visible(self, q_tokens, k_tokens):
        """Returns bool ``[B, 1, T, S]``, or None where every query sees every key."""
        q_order, k_order = q_tokens.order()[:, None, :, None], k_tokens.order()[:, None, None, :]
        ahead = q_order - k_order
        conditions = []
        if self.causal:
            conditions.append(ahead >= 0)
        if self.window is not None:
            conditions.append(ahead < self.window)
        if self.chunk is not None:
            conditions.append(q_order // self.chunk == k_order // self.chunk)
        if q_tokens.segment_ids is not None:
            q_segments, k_segments = q_tokens.segment_ids, k_tokens.segment_ids
            conditions.append(q_segments[:, None, :, None] == k_segments[:, None, None, :])
        if not conditions:
            return None
        seen = conditions[0]
        for condition in conditions[1:]:
            seen = seen & condition
        return seen


def check_window(window: Any) -> None:
    """Checks that ``window`` is a number of keys, Chunks or None."""
    if isinstance(window, Chunks | None):
        return
    is_known = not isinstance(window, jax.core.Tracer)
    if not is_whole(window) or (is_known and not 1 <= int(window) < 2**31):
        raise ValueError(
            f"window={window!r} must be a whole number of keys, 1 or more and below 2**31, or "
            "None, or Chunks(size)"
        )
