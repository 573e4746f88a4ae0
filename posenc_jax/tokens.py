"""Describes the tokens of a sequence for attention: their positions and their order.

Arrays keep the batch first and the tokens second, positions included: ``[B, T]``, or ``[B, T, A]``
for tokens that lie on several axes, such as the time, row and column of a patch.
"""

import dataclasses
import math
import operator
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from posenc_jax.hooks import check_made

if TYPE_CHECKING:
    from posenc_jax.encoding import Encoding

# The largest length that a scheme may adapt to: angles are exact up to here (rotary/angles.py).
LONGEST = 2**22

# float64 positions may lose this much when they become float32: a thousandth of a token.
MOST_ROUNDING = 2.0**-10


@dataclasses.dataclass(frozen=True)
class Stamp:
    """Says which encoding made ``Tokens.made``, and how far it has come; attention checks it.

    Attributes:
      made_by: the ``structure`` of the encoding.
      stage: "prepared" once per forward pass, "observed" in a layer whose input the encoding read,
        or "rotated" for keys and values that are rotated already.
      fixed: whether the length that the encoding adapts to stays the same when more tokens follow.
      resumes: whether the encoding observed tokens so that it can go on with those that follow.
    """

    made_by: Any
    stage: str
    fixed: bool
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
      stamp: who made ``made`` (static); None where nothing was made.
    """

    positions: jax.Array
    segment_ids: jax.Array | None = None
    index: jax.Array | None = None
    made: Any = None
    consecutive: bool = dataclasses.field(default=False, metadata={"static": True})
    stamp: Stamp | None = dataclasses.field(default=None, metadata={"static": True})

    @property
    def count(self) -> int:
        """Returns the number of tokens, T."""
        return self.positions.shape[1]

    def having(self, made: Any) -> "Tokens":
        """Returns these tokens with what an encoding made of them."""
        return dataclasses.replace(self, made=made)

    def at(self, positions: jax.Array) -> "Tokens":
        """Returns these tokens at other positions, which nothing is known of."""
        if positions is self.positions:
            return self
        return dataclasses.replace(self, positions=positions, consecutive=False)

    def length(self, given: float | jax.Array | None = None) -> float | jax.Array:
        """Returns the ``given`` length, or that of each token's own sequence where it is None.

        The latter is float32 ``[B, 1]``, or ``[B, T]`` where there are segments: one more than the
        largest position, or NaN from ``LONGEST`` on.
        """
        return own_length(self.positions, self.segment_ids) if given is None else given

    def observed(self, encoding: "Encoding", x_BTD: jax.Array) -> "Tokens":
        """Returns these tokens with what ``encoding`` observes in a layer's input ``x_BTD``.

        ``attend(..., x=)`` does so for self-attention. Where queries are a part of the tokens,
        observe all tokens and take the part then. Under a scheme that does not depend on content
        the tokens come back unchanged.

        Raises:
          ValueError: these tokens were observed already, for instance in the layer before; the
            input is not one vector for each token; or the encoding holds the parameters of several
            layers.
        """
        if "observe" not in encoding.hooks():
            return self
        self._check_input(encoding, x_BTD)
        return self.resumed(encoding, x_BTD, None)[0]

    def resumed(self, encoding: "Encoding", x_BTD: jax.Array, state: Any) -> tuple["Tokens", Any]:
        """Does what ``observed`` does, for tokens that follow those of ``state``.

        Returns the tokens, and the state after them.
        """
        made, state = encoding.observe(x_BTD, self, state)
        made = check_made(encoding, "observe", made, len(x_BTD), self.count)
        fixed = self.stamp is None or self.stamp.fixed
        stamp = Stamp(structure(encoding), "observed", fixed, state is not None)
        return dataclasses.replace(self, made=made, stamp=stamp), state

    def rotated(self) -> "Tokens":
        """Returns the tokens of keys and values that ``rotate_keys`` has rotated."""
        stamp = Stamp(None, "rotated", True) if self.stamp is None else self.stamp
        return dataclasses.replace(self, stamp=dataclasses.replace(stamp, stage="rotated"))

    def fixed(self) -> "Tokens":
        """Returns these tokens, whose encoding is known not to change them when more follow."""
        if self.stamp is None:
            return self
        return dataclasses.replace(self, stamp=dataclasses.replace(self.stamp, fixed=True))

    @property
    def stage(self) -> str:
        """Returns the stage of ``stamp``."""
        return "prepared" if self.stamp is None else self.stamp.stage

    def _check_input(self, encoding, x_BTD):
        name = type(encoding).__name__
        shape: tuple[int, ...] = getattr(x_BTD, "shape", ())
        if self.stage == "observed":
            raise ValueError(
                f"{name} observes a layer's input for tokens that have observed one already: in "
                "each layer pass x= with the tokens that encoding.tokens gave"
            )
        B, T = self.positions.shape[:2]
        dtype = getattr(x_BTD, "dtype", type(x_BTD).__name__)
        is_float = not isinstance(dtype, str) and jnp.issubdtype(dtype, jnp.floating)
        if not is_float or len(shape) != 3 or shape[1] != T or B not in (1, shape[0]):
            raise ValueError(
                f"{name} observes a layer's input x, [B, T, D], floating-point, one vector for "
                f"each of the {T} tokens of {B} sequences, not {dtype} of shape {shape}"
            )
        check_tokens("tokens", self, encoding)
        self.check_made_by(encoding, "tokens")
        if encoding.stacked is not None:
            raise ValueError(several_layers(encoding))

    def check_made_by(self, encoding: "Encoding", name: str) -> None:
        """Checks that ``encoding`` may read ``made``; errors call these tokens ``name``."""
        reads = not encoding.hooks().isdisjoint({"prepare", "observe"})
        made_by = None if self.stamp is None else self.stamp.made_by
        if reads and made_by is not None and made_by != structure(encoding):
            raise ValueError(
                f"{name} were made for another encoding than this {type(encoding).__name__}, or "
                "for it with other keywords: where layers have several encodings, make tokens for "
                "each, encoding.tokens(positions)"
            )

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
        elif not is_whole(start) or not 0 <= start <= last:
            raise ValueError(
                f"start={start!r} and count={count} must be within the {self.count} tokens: the "
                f"last {count} are part({last}, {count})"
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


def structure(encoding: "Encoding") -> tuple[Any]:
    """Returns class and keywords of an encoding, alike for all layers, as a tuple.

    JAX's structures alone cannot be compared with None.
    """
    one = encoding if encoding.stacked is None else encoding.unstacked()
    return (jax.tree.structure(one),)


def several_layers(encoding: "Encoding") -> str:
    """Returns the message of the error that one layer's encoding is needed and this has several."""
    return (
        f"this {type(encoding).__name__} holds the parameters of {encoding.stacked} layers; "
        "give attention one layer's own, encoding.of_layer(i), or make it without num_layers="
    )


def is_consecutive(positions: Any) -> bool:
    """Returns whether NumPy ``positions`` are one row of whole numbers that count up by one.

    The answer is False for other arrays, whose values are not known while a program is traced.
    ``positions.text`` returns NumPy arrays for this reason.
    """
    is_row = isinstance(positions, np.ndarray) and positions.ndim == 2 and len(positions) == 1
    if not is_row or not positions.size:
        return False
    return positions.dtype.kind in "iu" and bool((np.diff(positions.astype(np.int64)) == 1).all())


def check_positions(positions: Any) -> jax.Array:
    """Returns ``positions`` as int32 or float32, if one of them can represent the values.

    Values are checked where they are known: in NumPy arrays, lists, and JAX arrays outside of
    ``jax.jit``. Types are always checked.

    Raises:
      ValueError: the shape is not ``[B, T]`` or ``[B, T, A]``, there is no token, the type cannot
        count (bfloat16 reads 257 as 256), or a value is not finite or would be changed by the cast.
    """
    positions = as_array("positions", positions)
    if positions.ndim not in (2, 3) or 0 in positions.shape:
        raise ValueError(
            f"positions have shape {positions.shape}, but must be [B, T], or [B, T, A] for tokens "
            "on several axes, with at least one token; add a batch axis with [None]"
        )
    dtype, is_known = positions.dtype, not isinstance(positions, jax.core.Tracer)
    if jnp.issubdtype(dtype, jnp.integer):
        origin = "subtract an origin that all tokens share (posenc_jax.positions.since)"
        whole = _as_int32("positions", positions, origin)
        check_span("positions", positions)
        return whole
    if dtype not in (jnp.float32, jnp.float64):
        raise ValueError(
            f"positions must be whole numbers or float32, not {dtype}, which cannot count; cast "
            "them to int32 or float32"
        )
    if is_known:
        _check_floats(np.asarray(positions))
    elif dtype == jnp.float64:
        raise ValueError(
            "positions are float64 under jax.jit, where their values cannot be checked; subtract "
            "an origin outside (posenc_jax.positions.since) or cast them to float32"
        )
    return jnp.asarray(positions, jnp.float32)


def _as_int32(name, numbers, instead) -> jax.Array:
    """Returns whole numbers of any type as int32; known values must fit."""
    if numbers.dtype.itemsize >= 4 and numbers.dtype != jnp.int32:
        if isinstance(numbers, jax.core.Tracer):
            raise ValueError(
                f"{name} are {numbers.dtype} under jax.jit, where their values cannot be checked; "
                "cast them to int32"
            )
        values, limits = np.asarray(numbers), np.iinfo(np.int32)
        outside = values[(values < limits.min) | (values > limits.max)]
        if outside.size:
            raise ValueError(f"{name}: {outside.flat[0]} does not fit into int32; {instead}")
    return jnp.asarray(numbers, jnp.int32)


def check_span(name: str, *numbers: Any) -> bool:
    """Checks that differences of whole numbers fit into int32; errors call them ``name``.

    The result says whether their values are known.
    """
    if any(isinstance(each, jax.core.Tracer) for each in numbers):
        return False
    ends = [int(end) for each in map(np.asarray, numbers) for end in (each.min(), each.max())]
    if max(ends) - min(ends) > np.iinfo(np.int32).max:
        raise ValueError(
            f"{name} from {min(ends)} to {max(ends)} are too far apart for a distance in "
            f"int32; give {name} that are closer"
        )
    return True


def _check_floats(values):
    bad = values[~np.isfinite(values)]
    if bad.size:
        raise ValueError(f"position {bad.flat[0]} is not a finite number")
    rounding = abs(values.astype(np.float32).astype(np.float64) - values)
    if rounding.max() > MOST_ROUNDING:
        moved = values.flat[rounding.argmax()].item()
        raise ValueError(
            f"position {moved} would be moved by {rounding.max():.3g} in float32; subtract an "
            "origin that all tokens share (posenc_jax.positions.since)"
        )


def check_numbers(name: str, numbers: Any, positions: jax.Array) -> jax.Array | None:
    """Returns numbers of the tokens, ``segment_ids`` or ``index``, as int32 ``[B, T]``, or None.

    Raises:
      ValueError: they are not whole, not one for each of the tokens at ``positions``, or would be
        changed by the cast, where their values are known.
    """
    if numbers is None:
        return None
    numbers = as_array(name, numbers)
    B, T = positions.shape[:2]
    fits = numbers.ndim == 2 and numbers.shape[1] == T and (B == 1 or len(numbers) in (1, B))
    if not jnp.issubdtype(numbers.dtype, jnp.integer) or not fits:
        raise ValueError(
            f"{name} must be whole numbers of shape [{B}, {T}], one for each token, not "
            f"{numbers.dtype} of shape {numbers.shape}"
        )
    # Differences of unsigned numbers are never negative, so no token would be hidden.
    instead = f"renumber them, {name} = np.unique({name}, return_inverse=True)[1]"
    whole = _as_int32(name, numbers, instead)
    if name == "index":
        check_span(name, numbers)
    return whole


def as_array(name: str, numbers: Any) -> np.ndarray | jax.Array:
    """Returns an array of JAX as it is, and anything else as one of NumPy; errors call it ``name``.

    Raises:
      ValueError: rows differ in length.
    """
    if isinstance(numbers, jax.Array):
        return numbers
    if hasattr(numbers, "__jax_array__"):  # nnx.Variable has one, perhaps traced.
        return jnp.asarray(numbers)
    try:
        return np.asarray(numbers)
    except ValueError:
        raise ValueError(f"{name} must be one array, but rows differ in length: pad them") from None


def check_tokens(name: str, tokens: Any, encoding: "Encoding | None" = None) -> None:
    """Checks that ``tokens`` are Tokens, and that they have what ``encoding`` prepares.

    Errors call them ``name``.
    """
    if not isinstance(tokens, Tokens):
        raise ValueError(
            f"{name} must be Tokens, not {type(tokens).__name__}: pass encoding.tokens(positions)"
        )
    if encoding is not None and "prepare" in encoding.hooks() and tokens.stamp is None:
        raise ValueError(
            f"{name} were not prepared for {type(encoding).__name__}: make them by "
            "encoding.tokens(positions)"
        )


def count_of(name: str, value: Any, minimum: int = 1, maximum: int = 2**31 - 1) -> int:
    """Returns ``value``, a size, a count or an index of any integer type, as an int.

    By default it must fit into int32, in which attention counts.

    Raises:
      ValueError: ``value`` is no whole number, or not within ``minimum`` and ``maximum``. The error
        calls it ``name``.
    """
    try:
        count = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        count = None
    if count is None or not minimum <= count <= maximum:
        allowed = f"at least {minimum}, and a whole number below 2**31"
        if maximum < 2**31 - 1:
            allowed = f"within {minimum}..{maximum}, and a whole number"
        raise ValueError(f"{name}={value!r} must be {allowed}")
    return count


def is_real(value: Any) -> bool:
    """Returns whether ``value`` is one real number, of Python, NumPy or JAX, perhaps traced."""
    is_number = isinstance(value, int | float | np.number | np.ndarray | jax.Array)
    # Neither a bool nor a complex number.
    return is_number and jnp.ndim(value) == 0 and jnp.result_type(value).kind not in "bc"


def is_whole(value: Any) -> bool:
    """Returns whether ``value`` is one whole number, of Python, NumPy or JAX, perhaps traced."""
    return is_real(value) and jnp.issubdtype(jnp.result_type(value), jnp.integer)


def check_positive(**numbers: Any) -> None:
    """Checks that numbers are positive and finite."""
    for name, number in numbers.items():
        if not is_real(number) or not 0 < number < math.inf:
            raise ValueError(f"{name}={number!r} must be a positive number, finite")


def check_flags(**flags: Any) -> None:
    """Checks that flags are True or False, and not traced."""
    for name, flag in flags.items():
        if not isinstance(flag, bool | np.bool_):
            raise ValueError(
                f"{name}={flag!r} must be True or False, known while the program is traced"
            )


def checked_length(length, positions):
    """Returns a Python number as it is, and an array as float32, NaN where it is no length."""
    if length is None:
        return None
    is_array = isinstance(length, jax.Array | np.ndarray)
    is_real = is_array and length.dtype.kind in "iuf"
    if not is_array and not isinstance(length, bool):
        is_real = isinstance(length, int | float | np.number) and not np.iscomplexobj(length)
    fits = not is_array or _broadcasts(length.shape, positions.shape[:2])
    is_known = not isinstance(length, jax.core.Tracer)
    if not is_real or not fits or (is_known and not _are_lengths(length)):
        B, T = positions.shape[:2]
        raise ValueError(
            f"length={length!r} must be a positive number of tokens, or an array of such numbers "
            f"that broadcasts against [{B}, {T}], below 2**31"
        )
    if not is_array:
        return length
    # A traced one cannot be refused, and must not become a number.
    return jnp.where(length >= 1, length, jnp.nan).astype(jnp.float32)


def _are_lengths(numbers) -> bool:
    return bool(((np.asarray(numbers) >= 1) & (np.asarray(numbers) < 2**31)).all())


def _broadcasts(shape, of_tokens) -> bool:
    """Returns whether an array broadcasts against tokens ``[B, T]``, whose B may be 1."""
    B, T = of_tokens
    rows, columns = (1, 1, *shape)[-2:]
    return len(shape) <= 2 and (rows in (1, B) or B == 1) and columns in (1, T)


def check_key(key: Any) -> None:
    """Checks that ``key`` is a random key of JAX and not, for instance, a seed."""
    is_array = isinstance(key, jax.Array | np.ndarray)
    is_old = is_array and key.dtype == np.uint32 and key.ndim == 1
    if not is_old and not (is_array and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)):
        raise ValueError(
            f"key is {type(key).__name__}, but must be a random key, a fresh one in each step of "
            "training: jax.random.key(seed), folded with the step, or rngs.params() of nnx.Rngs; "
            "elsewhere None"
        )


def own_length(positions: jax.Array, segment_ids: jax.Array | None = None) -> jax.Array:
    """Returns one more than the largest position of each token's sequence, or segment.

    The result is float32 ``[B, 1]`` or ``[B, T]``, exact up to ``LONGEST``. A larger one is NaN,
    because such a position marks padding, or is a time, and gives no length to adapt to.
    """
    if positions.ndim == 3:
        positions = positions.max(axis=-1)
    if segment_ids is None:
        return _as_length(positions.max(axis=-1, keepdims=True))
    positions, segment_ids = jnp.broadcast_arrays(positions, segment_ids)
    # Sorting makes each segment one run, in whatever order the tokens are laid out.
    order = jnp.argsort(segment_ids, axis=-1)
    sorted_ids = jnp.take_along_axis(segment_ids, order, axis=-1)
    starts = sorted_ids[:, 1:] != sorted_ids[:, :-1]
    run = jnp.cumsum(jnp.pad(starts, ((0, 0), (1, 0))), axis=-1)
    run = jnp.take_along_axis(run, jnp.argsort(order, axis=-1), axis=-1)
    largest = jax.vmap(
        lambda last, number: jax.ops.segment_max(last, number, num_segments=last.size)[number]
    )
    return _as_length(largest(positions, run))


def _as_length(largest):
    return jnp.where(largest < LONGEST, largest.astype(jnp.float32) + 1, jnp.nan)
