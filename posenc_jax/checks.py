"""Checks the arguments of users, once, where they enter; each error names its fix.

A function whose name begins with ``check`` returns nothing, and one that begins with ``checked``
returns what it has checked, in the form that the library computes with.
"""

import math
import operator
import sys
from collections.abc import Collection
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

# float64 positions may lose this much when they become float32: a thousandth of a token.
MOST_ROUNDING = 2.0**-10

# The largest length that a scheme may adapt to: angles are exact up to here (lib/angles.py).
LONGEST = 2**22

# The types of arrays that attention reads. Narrower ones, such as float8, JAX does not promote.
FLOATS = jnp.float16, jnp.bfloat16, jnp.float32, jnp.float64


# Keywords


def count_of(name: str, value: Any, minimum: int = 1, maximum: int = 2**31 - 1) -> int:
    """Returns ``value``, a size, a count or an index of any integer type, as an int.

    By default it must fit into int32, in which attention counts. Errors call it ``name``.
    """
    try:
        count = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        count = None
    if count is None or not minimum <= count <= maximum:
        allowed = f"of at least {minimum}, below 2**31"
        if maximum < 2**31 - 1:
            allowed = f"within {minimum}..{maximum}"
        raise ValueError(f"{name}={value!r} must be a whole number {allowed}")
    return count


def counts_of(name: str, values: Any, *limits: int) -> tuple[int, ...]:
    """Returns ``values``, one or more, as a tuple of ints that ``count_of`` has checked."""
    counts = tuple(count_of(name, n, *limits) for n in values) if np.iterable(values) else ()
    if not counts:
        raise ValueError(f"{name}={values!r} must be a tuple of whole numbers, one for each axis")
    return counts


def check_sizes(**sizes: int | None) -> None:
    """Checks that sizes are whole numbers, 1 or more; None is allowed."""
    for name, size in sizes.items():
        if size is not None:
            count_of(name, size)


def is_real(value: Any) -> bool:
    """Returns whether ``value`` is one real number, of Python, NumPy or JAX, perhaps traced."""
    is_number = isinstance(value, int | float | np.number | np.ndarray | jax.Array)
    # Neither a bool nor a complex number.
    return is_number and jnp.ndim(value) == 0 and jnp.result_type(value).kind not in "bc"


def is_whole(value: Any) -> bool:
    """Returns whether ``value`` is one whole number, of Python, NumPy or JAX, perhaps traced."""
    return is_real(value) and jnp.issubdtype(jnp.result_type(value), jnp.integer)


def in_python(number: Any) -> float:
    """Returns a known real number as one of Python, which a trace compares without tracing."""
    return np.asarray(number).item()


def check_positive(**numbers: Any) -> None:
    """Checks that numbers are positive and finite; None is allowed."""
    for name, number in numbers.items():
        if number is not None and (not is_real(number) or not 0 < in_python(number) < math.inf):
            raise ValueError(f"{name}={number!r} must be a positive, finite number")


def check_range(low: float, high: float = sys.float_info.max, **numbers: Any) -> None:
    """Checks that numbers are within ``low`` and ``high``, both included; None is allowed."""
    for name, number in numbers.items():
        if number is not None and (not is_real(number) or not low <= in_python(number) <= high):
            limits = f"within {low}..{high}" if high < sys.float_info.max else f"of {low} or more"
            raise ValueError(f"{name}={number!r} must be a finite number {limits}")


def check_ascending(**bounds: float) -> None:
    """Checks that the first of two positive numbers is not larger than the second."""
    check_positive(**bounds)
    (low, least), (high, most) = bounds.items()
    if most < least:
        raise ValueError(f"{high}={most} must not be below {low}={least}")


def check_choice(options: Collection[Any], **values: Any) -> None:
    """Checks that values are among ``options``."""
    for name, value in values.items():
        if value not in options:
            raise ValueError(f"{name}={value!r} must be one of {tuple(options)}")


def check_multiple(of: int, **sizes: int) -> None:
    """Checks that sizes are multiples of a number, 0 included."""
    for name, size in sizes.items():
        if size % of or size < 0:
            raise ValueError(f"{name}={size!r} must be a multiple of {of}")


def check_divides(**sizes: int) -> None:
    """Checks that the first of two sizes divides the second."""
    (name, part), (of, whole) = sizes.items()
    if part < 1 or whole % part:
        raise ValueError(f"{name}={part!r} must divide {of}={whole}")


def is_key(key: Any) -> bool:
    """Returns whether ``key`` is an array, as random keys of both kinds are."""
    # An instance of nnx.Rngs would take "dtype" for the name of a stream.
    return hasattr(type(key), "dtype")


def check_key(key: Any) -> None:
    """Checks that ``key`` is a random key, or None."""
    if key is not None and not is_key(key):
        raise ValueError(f"key={key!r} must be a random key: pass jax.random.key(0)")


def check_rngs(rngs: Any) -> None:
    """Checks that ``rngs`` are Flax's."""
    if not isinstance(rngs, nnx.Rngs):
        raise ValueError(f"rngs={rngs!r} must be random numbers of Flax: pass nnx.Rngs(0)")


# Tokens


def as_array(name: str, numbers: Any) -> np.ndarray | jax.Array:
    """Returns an array of JAX as it is, and anything else as one of NumPy."""
    if isinstance(numbers, jax.Array):
        return numbers
    if hasattr(numbers, "__jax_array__"):  # nnx.Variable has one, perhaps traced.
        return jnp.asarray(numbers)
    if isinstance(numbers, np.ma.MaskedArray):
        raise ValueError(f"{name} is a masked array, whose mask would be lost: fill it first")
    try:
        return np.asarray(numbers)
    except ValueError:
        raise ValueError(f"{name} must be one array, but rows differ in length: pad them") from None


def checked_positions(positions: Any) -> jax.Array:
    """Returns ``positions`` as int32 or float32, if one of them can represent the values.

    Values are checked where they are known: in NumPy arrays, lists, and JAX arrays outside of
    ``jax.jit``. Types are always checked.
    """
    positions = as_array("positions", positions)
    dtype, shape = positions.dtype, positions.shape
    counts = jnp.issubdtype(dtype, jnp.integer) or dtype in (jnp.float32, jnp.float64)
    if not counts or len(shape) not in (2, 3) or 0 in shape:
        raise ValueError(
            f"positions are {dtype} of shape {shape}, but must be whole numbers or float32 (other "
            "types cannot count), of shape [B, T], or [B, T, A] for several axes, with at least "
            "one token: cast them, or add a batch axis with [None]"
        )
    origin = "subtract an origin that all tokens share (posenc_jax.positions.since)"
    return jnp.asarray(in_32_bits("positions", positions, origin))


def in_32_bits(name: str, numbers: Any, fix: str) -> Any:
    """Returns whole numbers as int32 and others as float32; no known value may change.

    Errors call the numbers ``name`` and propose ``fix``.
    """
    is_whole = numbers.dtype.kind in "iuO"
    dtype = np.dtype("int32" if is_whole else "float32")
    if isinstance(numbers, jax.core.Tracer):
        return jnp.asarray(numbers, dtype)
    values = np.asarray(numbers)
    with np.errstate(invalid="ignore", over="ignore"):
        if is_whole:
            is_lost = (values < -(2**31)) | (values >= 2**31)
        else:
            is_lost = ~(abs(values.astype(dtype).astype(np.float64) - values) <= MOST_ROUNDING)
            is_lost |= abs(values) >= 2**31
    if not is_whole and not np.isfinite(values).all():
        value = values[~np.isfinite(values)][0]
        raise ValueError(
            f"{name}: {value} must be finite; give padding any finite one and a segment of its own"
        )
    if is_lost.any():
        raise ValueError(f"{name}: {values[is_lost][0]} does not fit into {dtype}; {fix}")
    return numbers.astype(dtype)


def check_rows(positions: Any, count: int, fix: str) -> None:
    """Checks that known positions are whole numbers below ``count``; errors propose ``fix``."""
    if isinstance(positions, jax.core.Tracer):
        return
    positions = np.asarray(positions)
    outside = positions[(positions < 0) | (positions >= count) | (positions % 1 != 0)]
    if outside.size:
        raise ValueError(f"position {outside.flat[0]} is not among 0..{count - 1}; {fix}")


def checked_numbers(name: str, numbers: Any, positions: jax.Array) -> jax.Array | None:
    """Returns numbers of the tokens, ``segment_ids`` or ``index``, as int32 ``[B, T]``, or None."""
    if numbers is None:
        return None
    numbers = as_array(name, numbers)
    B, T = positions.shape[:2]
    fits = numbers.ndim == 2 and numbers.shape[1] == T and (B == 1 or numbers.shape[0] in (1, B))
    if not jnp.issubdtype(numbers.dtype, jnp.integer) or not fits:
        shape = f"[{B}, {T}]" if B > 1 else f"[B, {T}]"
        fix = f"; give {name}.astype(int)" if numbers.dtype == bool else ""
        raise ValueError(
            f"{name} must be whole numbers of shape {shape}, one for each token, not "
            f"{numbers.dtype} of shape {numbers.shape}{fix}"
        )
    instead = f"renumber them, {name} = np.unique({name}, return_inverse=True)[1], once for"
    if name == "index":  # Renumbering would close gaps, which windows count.
        instead = "subtract the first index of"
    instead += " all tokens that attend to each other"
    # Differences of unsigned numbers are never negative, so no token would be hidden.
    return jnp.asarray(in_32_bits(name, numbers, instead))


def checked_length(length: Any, positions: jax.Array) -> Any:
    """Returns a Python number as it is, and an array that fits ``positions`` as float32."""
    is_array = isinstance(length, jax.Array | np.ndarray)
    is_right = length is None or is_array or is_whole(length)
    if is_right and length is not None and not isinstance(length, jax.core.Tracer):
        is_right = bool(((np.asarray(length) >= 1) & (np.asarray(length) <= LONGEST)).all())
    if is_array:
        sizes = zip(length.shape[::-1], positions.shape[1::-1], strict=False)
        is_right &= length.ndim <= 2 and all(n == size or 1 in (n, size) for n, size in sizes)
    if not is_right:
        raise ValueError(
            f"length={length!r} must be a number of tokens from 1 to 2**22, up to which angles are "
            f"exact, or an array of such numbers that broadcasts against [B, T], here "
            f"{list(positions.shape[:2])}"
        )
    return jnp.asarray(length, jnp.float32) if is_array else length


# Encodings


def check_encoding(encoding: Any, name: str = "encoding") -> None:
    """Checks that ``encoding`` is an Encoding, no class and no Layers; errors call it ``name``."""
    if not hasattr(encoding, "overrides") or isinstance(encoding, type):
        # A module prints all of its arrays.
        is_short = isinstance(encoding, str | type)
        given = repr(encoding) if is_short else type(encoding).__name__
        raise ValueError(
            f"{name} must be an Encoding, as posenc_jax.make gives it, not {given}; for Layers "
            "pass one layer's encoding, layers.at(i)[0]"
        )


def check_one_layer(encoding: Any) -> None:
    """Checks that ``encoding`` is an encoding with the parameters of one layer."""
    check_encoding(encoding)
    if encoding.stacked is not None:
        raise ValueError(
            f"this {type(encoding).__name__} holds the parameters of {encoding.stacked} layers; "
            "give attention one layer's, here.of_layer(i), or in a scan encoding.unstacked(); "
            "or make it without num_layers"
        )


def check_made(encoding: Any, made: Any, count: int) -> None:
    """Checks that what ``encoding`` made of ``count`` tokens has the tokens along axis 1."""
    for shape in map(np.shape, jax.tree.leaves(made)):
        if len(shape) < 2 or shape[1] != count:
            raise ValueError(
                f"{type(encoding).__name__} made an array of shape {shape} for {count} tokens, but "
                f"arrays of tokens must have the tokens along axis 1, [B or 1, {count}, ...], "
                "because attention cuts them by tokens: repeat it, or compute it in score"
            )


def check_logits(encoding: Any, logits: Any, shape: tuple) -> None:
    """Checks that ``score`` of ``encoding`` returned logits of the shape that it was given."""
    if np.shape(logits) != shape:
        raise ValueError(
            f"score of {type(encoding).__name__} returned an array of shape {np.shape(logits)} for "
            f"logits of shape {shape}: return one logit for each head, query and key, [B, H, T, S]"
        )


# Attention


def has_floats(x: Any) -> bool:
    """Returns whether ``x`` is an array of floating-point numbers of one of ``FLOATS``."""
    return hasattr(x, "dtype") and x.dtype in FLOATS


def type_of(x: Any) -> Any:
    """Returns the type of an array's elements; of anything else, the name of its class."""
    return x.dtype if hasattr(x, "dtype") else type(x).__name__


# The axes of arrays that attention reads; channels may differ.
_AXES = {"q": "BTH", "k": "BSK", "v": "BSK", "weights": "BHTS"}


def check_arrays(**arrays: Any) -> None:
    """Checks that arrays, called as in ``_AXES``, have four axes whose sizes fit each other."""
    shapes = ", ".join(f"{name} {np.shape(x)}" for name, x in arrays.items())
    sizes: dict[str, int] = {}
    fits = True
    for name, x in arrays.items():
        if not has_floats(x) or x.ndim != 4 or 0 in x.shape:
            raise ValueError(
                f"{shapes}: {name} must be a floating-point array (float16, bfloat16, float32 or "
                f"float64) of four axes, each of at least 1, and is {type_of(x)} with {np.ndim(x)} "
                "axes"
            )
        for axis, size in zip(_AXES[name], x.shape, strict=False):
            fits &= sizes.setdefault(axis, size) == size
    if not fits or sizes.get("H", 0) % sizes["K"]:
        raise ValueError(
            f"{shapes} do not fit: q must be [B, T, H, C], k and v [B, S, K, C], and weights, as "
            "logits returns them, [B, H, T, S], with H a multiple of K"
        )


def check_widths(q_BTHC, k_BSKC) -> None:
    """Checks that queries and keys have equally many channels, both rotated or neither."""
    if q_BTHC.shape[-1] != k_BSKC.shape[-1]:
        raise ValueError(
            f"q has {q_BTHC.shape[-1]} channels and k has {k_BSKC.shape[-1]}, but both must have "
            "equally many: give both of them before rotation, or Keys of the same scheme"
        )


def check_shard(heads: Any, H: int, K: int, num_heads: int) -> None:
    """Checks that ``heads`` are the numbers of H query heads that read whole kv heads."""
    group = H // K
    is_right = np.shape(heads) == (H,) and H % K == 0 and num_heads % group == 0
    if is_right and not isinstance(heads, jax.core.Tracer):
        numbers = np.asarray(heads)
        kv_heads = numbers.reshape(K, group) // group
        is_right = len(np.unique(numbers)) == H and bool((kv_heads == kv_heads[:, :1]).all())
        is_right &= bool(((numbers >= 0) & (numbers < num_heads)).all())
    if not is_right:
        raise ValueError(
            f"heads={heads} must be an array of {H} different numbers of query heads "
            f"within 0..{num_heads - 1}, one for each head of the given queries; {group} heads in "
            f"a row read one of the {K} kv heads given, so they must be all {group} query heads "
            "of a kv head of the model: give these, or repeat keys and values (jnp.repeat)"
        )


def check_input(encoding, tokens: Any, x_BTD: Any, state: Any) -> None:
    """Checks that ``x_BTD`` is the input of a layer, which ``encoding`` observes for ``tokens``."""
    name = type(encoding).__name__
    B, T = tokens.positions.shape[:2]
    shape = np.shape(x_BTD)
    if not has_floats(x_BTD) or len(shape) != 3 or shape[1] != T or B not in (1, shape[0]):
        raise ValueError(
            f"{name} observes a layer's input x, a floating-point array [B, T, D], one vector for "
            f"each of the {T} tokens of {B} sequences, not {type_of(x_BTD)} of shape {shape}"
        )
    if state is not None and tokens.segment_ids is not None:
        raise ValueError(
            f"{name} goes on from a state, which does not say where segments begin: see all tokens "
            "at once, or each segment by itself"
        )


def check_side(tokens: Any, name: str, x: Any) -> None:
    """Checks that ``tokens`` belong to ``x``, queries or keys that errors call ``name``."""
    B, length = x.shape[:2]
    if tokens.positions.shape[:2] not in ((B, length), (1, length)):
        raise ValueError(
            f"positions have shape {tokens.positions.shape}, but {name} of shape {x.shape} has "
            f"{length} tokens in a batch of {B}: give encoding.at the positions of all of them"
        )
    for number in ("segment_ids", "index"):
        shape = np.shape(getattr(tokens, number))
        if shape and shape[0] not in (1, B):
            raise ValueError(
                f"{number} have shape {shape}, but {name} of shape {x.shape} has a batch of {B}: "
                f"give {number} one row, or a row for each of the batch"
            )


def check_scale(scale: Any) -> None:
    """Checks that ``scale``, the factor of all products, is one real number."""
    if not is_real(scale):
        raise ValueError(f"scale={scale!r} must be one real number, a float or an array []")


# Models


def check_ids(name: str, ids_BT: Any, vocab_size: int) -> None:
    """Checks that token ids are whole numbers ``[B, T]``, and below ``vocab_size`` if known."""
    if ids_BT.ndim != 2 or 0 in ids_BT.shape or not jnp.issubdtype(ids_BT.dtype, jnp.integer):
        raise ValueError(
            f"{name} must be token ids, whole numbers [B, T] of at least one row and one token, "
            f"not {ids_BT.dtype} of shape {ids_BT.shape}"
        )
    if isinstance(ids_BT, jax.core.Tracer):
        return
    outside = np.asarray(ids_BT)[(np.asarray(ids_BT) < 0) | (np.asarray(ids_BT) >= vocab_size)]
    if outside.size:
        raise ValueError(
            f"{name} has token {outside.flat[0]}, but the model knows 0..{vocab_size - 1}: use its "
            "tokenizer, or make the model with a larger vocab_size"
        )


def check_room(cache, positions: Any, segment_ids: Any, T: int) -> None:
    """Checks that a model's cache has room for T new tokens, and was made for such tokens."""
    # Under jax.jit the count is not known; the model then gives NaN.
    count = 0 if isinstance(cache.count, jax.core.Tracer) else int(cache.count)
    if count + T > cache.size:
        raise ValueError(
            f"a cache of size={cache.size} with {count} tokens has no room for {T} more; "
            f"make it with size={count + T} or more"
        )
    slots, is_row = cache.positions, positions.shape[:2] in ((cache.batch, T), (1, T))
    if not is_row or positions.ndim != slots.ndim or positions.dtype != slots.dtype:
        raise ValueError(
            f"positions are {positions.dtype} of shape {positions.shape}, but must be of the {T} "
            f"new tokens alone, in a batch of {cache.batch} or 1, and as axes= and dtype= of "
            f"Cache.empty say: {slots.dtype} with {slots.ndim} axes"
        )
    given, expected = segment_ids is not None, cache.segment_ids is not None
    if given != expected:
        raise ValueError(
            f"segment_ids are {'' if given else 'not '}given, but the cache was made with "
            f"segments={expected}: make it by Cache.empty with segments={given}"
        )
