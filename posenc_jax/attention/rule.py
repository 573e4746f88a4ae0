"""Says which keys a query may see, and what else decides the weights of the keys that it sees."""

import dataclasses
import functools
import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from posenc_jax.attention.dropout import Dropout
from posenc_jax.checks import as_array, count_of, is_whole

# A number counts the keys up to the query itself, and a pair the keys before and after it.
Window = int | jax.Array | tuple[int | None, int | None]
Mask = jax.Array | Callable[[jax.Array, jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True)
class Chunks:
    """Describes a window by chunks: a query sees the keys of its own chunk (Llama 4).

    Args:
      size: number of tokens in a chunk. The first chunk begins with the first token; in packed
        documents and after padding, with the first token of each segment. Tokens are counted in
        written order, so a token of another segment that lies within a segment counts too.
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
      after: a query sees only keys whose index is larger than its own by at most this, an int, an
        int array ``[]``, or None to see all.
      mask: bool ``[B, H, T, S]``, where any axis may be 1, or a function of the indices of queries
        and keys, as :func:`attend` takes it; None hides nothing.
      sinks: one more logit for each query, with no key and no value: float32 ``[B, T, H]``, whose
        B and T may be 1, or None (``sinks.py``).
      dropout: which weights are dropped, or None (``dropout.py``).
    """

    window: int | jax.Array | None
    causal: bool = dataclasses.field(metadata={"static": True})
    in_order: bool = dataclasses.field(metadata={"static": True})
    chunk: int | None = dataclasses.field(default=None, metadata={"static": True})
    after: int | jax.Array | None = None
    mask: Any = None
    sinks: jax.Array | None = None
    dropout: Dropout | None = None

    @property
    def by_order(self) -> bool:
        """Returns whether a query sees all keys written before it, or some of the last ones."""
        return self.causal and self.in_order and self.chunk is None and self.mask is None

    def visible(self, q_tokens, k_tokens):
        """Returns bool ``[B, H, T, S]``, H mostly 1, or None where every query sees every key."""
        q_order, k_order = q_tokens.order()[:, None, :, None], k_tokens.order()[:, None, None, :]
        ahead = q_order - k_order
        conditions = []
        if self.causal:
            conditions.append(ahead >= 0)
        if self.window is not None:
            conditions.append(ahead < self.window)
        if self.after is not None:
            conditions.append(ahead >= -self.after)
        if self.chunk is not None:
            conditions.append(q_order // self.chunk == k_order // self.chunk)
        if q_tokens.segment_ids is not None:
            q_segments, k_segments = q_tokens.segment_ids, k_tokens.segment_ids
            conditions.append(q_segments[:, None, :, None] == k_segments[:, None, None, :])
        if self.mask is not None:
            conditions.append(self.mask(q_order, k_order) if callable(self.mask) else self.mask)
        return functools.reduce(operator.and_, conditions) if conditions else None


def check_window(window: Any) -> None:
    """Checks that ``window`` is a number of keys, a pair of such numbers, Chunks or None."""
    if isinstance(window, Chunks | None):
        return
    is_pair = isinstance(window, tuple) and len(window) == 2
    is_right = all(side is None or _is_count(side, 0) for side in window) if is_pair else False
    if not is_right and not _is_count(window, 1):
        raise ValueError(
            f"window={window!r} must be a whole number of keys, 1 or more and below 2**31, the "
            "query's own included; or (left, right), how many keys a query sees before and after "
            "its own place, None for all; or None, or Chunks(size)"
        )


def _is_count(number, minimum: int) -> bool:
    """Returns whether ``number`` is whole, and within ``minimum`` and int32 where it is known."""
    is_known = not isinstance(number, jax.core.Tracer)
    return is_whole(number) and (not is_known or minimum <= int(number) < 2**31)


def sides_of(window: Window | None, causal: bool) -> tuple[Any, Any]:
    """Returns ``window`` and ``after`` of a rule."""
    if not isinstance(window, tuple):
        return window, None
    left, right = window
    if causal and (isinstance(right, jax.core.Tracer | None) or int(right) != 0):
        raise ValueError(
            f"window={window!r} reaches to keys after the query, which causal=True hides: pass "
            f"causal=False, or window=({left}, 0)"
        )
    before, after = (None if side is None else _in_int32(side) for side in window)
    return None if before is None else before + 1, None if causal else after


def _in_int32(number: int | jax.Array) -> int | jax.Array:
    """Returns a number of keys as int32 or an int, low enough that int32 holds one more."""
    most = 2**31 - 2
    if isinstance(number, jax.Array):
        return jnp.minimum(number.astype(jnp.int32), most)
    return min(int(number), most)


def checked_mask(mask: Any, B, H, T, S) -> Any:
    """Returns ``mask`` with four axes, or as a function that may go through ``jax.jit``."""
    if mask is None:
        return None
    if callable(mask):
        mask = mask if isinstance(mask, jax.tree_util.Partial) else jax.tree_util.Partial(mask)
        sides = (jax.ShapeDtypeStruct(shape, jnp.int32) for shape in ((B, 1, T, 1), (B, 1, 1, S)))
        call = jax.make_jaxpr(lambda mask, *indices: mask(*indices), return_shape=True)
        program, given = call(mask, *sides)
        what = "mask(q_index, k_index) returns"
        # A tile is a program by itself, which cannot read tracers of its caller.
        if any(isinstance(x, jax.core.Tracer) for x in program.consts):
            raise ValueError(
                "mask is a function that reads traced arrays from outside: pass them with it, "
                "mask=jax.tree_util.Partial(function, *arrays), and let the function take them "
                "before q_index and k_index"
            )
    else:
        given = mask = jnp.asarray(as_array("mask", mask))
        what = "mask is"
    shape = (1,) * (4 - given.ndim) + given.shape
    fits = len(shape) == 4 and all(
        n in (1, full) for n, full in zip(shape, (B, H, T, S), strict=True)
    )
    if given.dtype != bool or not fits:
        raise ValueError(
            f"{what} {given.dtype} of shape {given.shape}, but must be bool and broadcast to "
            f"[B, H, T, S], here [{B}, {H}, {T}, {S}]; True is a key that the query sees, and a "
            "mask of keys alone, [B, S], is mask[:, None, None]"
        )
    return mask if callable(mask) else mask.reshape(shape)
