"""Checks what users pass, once, where it enters: errors that people make, each with its fix."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from posenc_jax.fields import (
    check_choice,
    check_divides,
    check_range,
    count_of,
    is_real,
    is_whole,
)

# float64 positions may lose this much when they become float32: a thousandth of a token.
MOST_ROUNDING = 2.0**-10


# The largest length that a scheme may adapt to: angles are exact up to here (rotary/angles.py).
LONGEST = 2**22


# Numbers


def check_positions(positions: Any) -> jax.Array:
    """Returns ``positions`` as int32 or float32, if one of them can represent the values.

    Values are checked where they are known: in NumPy arrays, lists, and JAX arrays outside of
    ``jax.jit``. Types are always checked.

    Raises:
      ValueError: the shape is not ``[B, T]`` or ``[B, T, A]``, there is no token, the type cannot
        count (bfloat16 reads 257 as 256), or a value is not finite or would be changed by the cast.
    """
    positions = as_array("positions", positions)
    dtype, shape = positions.dtype, positions.shape
    counts = jnp.issubdtype(dtype, jnp.integer) or dtype in (jnp.float32, jnp.float64)
    if not counts or len(shape) not in (2, 3) or 0 in shape:
        raise ValueError(
            f"positions are {dtype} of shape {shape}, but must be whole numbers or float32, other "
            "types cannot count, and [B, T], or [B, T, A] for tokens on several axes, with at "
            "least one token: cast them, or add a batch axis with [None]"
        )
    origin = "subtract an origin that all tokens share (posenc_jax.positions.since)"
    exact = in_32_bits("positions", positions, origin)
    if exact.dtype == jnp.int32:
        check_span("positions", positions)
    return jnp.asarray(exact)


def in_32_bits(name: str, numbers: Any, fix: str) -> Any:
    """Returns whole numbers as int32 and others as float32; no known value may change.

    Errors call the numbers ``name`` and propose ``fix``.
    """
    is_whole = numbers.dtype.kind in "iuO"
    dtype = np.dtype("int32" if is_whole else "float32")
    if isinstance(numbers, jax.core.Tracer):
        if numbers.dtype.itemsize >= 4 and numbers.dtype != dtype:
            raise ValueError(
                f"{name} are {numbers.dtype} under jax.jit, where their values cannot be checked; "
                f"cast them to {dtype}, or {fix} outside"
            )
        return jnp.asarray(numbers, dtype)
    values = np.asarray(numbers)
    with np.errstate(invalid="ignore", over="ignore"):
        if is_whole:
            is_lost = (values < -(2**31)) | (values >= 2**31)
        else:
            is_lost = ~(abs(values.astype(dtype).astype(np.float64) - values) <= MOST_ROUNDING)
            is_lost |= abs(values) >= 2**31
    if is_lost.any():
        raise ValueError(f"{name}: {values[is_lost][0]} does not fit into {dtype}; {fix}")
    return numbers.astype(dtype)


def check_span(name: str, *numbers: Any) -> bool:
    """Checks that differences of whole numbers fit into int32; errors call them ``name``.

    The result says whether their values are known.
    """
    if any(isinstance(array, jax.core.Tracer) for array in numbers):
        return False
    ends = [int(end) for array in map(np.asarray, numbers) for end in (array.min(), array.max())]
    if max(ends) - min(ends) > np.iinfo(np.int32).max:
        raise ValueError(
            f"{name} from {min(ends)} to {max(ends)} are too far apart for a distance in "
            f"int32; give {name} that are closer"
        )
    return True


def check_rows(positions: Any, count: int, fix: str) -> None:
    """Checks that known positions are whole numbers below ``count``; errors propose ``fix``."""
    if isinstance(positions, jax.core.Tracer):
        return
    positions = np.asarray(positions)
    outside = positions[(positions < 0) | (positions >= count) | (positions % 1 != 0)]
    if outside.size:
        raise ValueError(f"position {outside.flat[0]} is not among 0..{count - 1}; {fix}")


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
    whole = in_32_bits(name, numbers, instead)
    if name == "index":
        check_span(name, numbers)
    return jnp.asarray(whole)


def as_array(name: str, numbers: Any) -> np.ndarray | jax.Array:
    """Returns an array of JAX as it is, and anything else as one of NumPy; errors call it ``name``.

    Raises:
      ValueError: rows differ in length, or the array is one of ``numpy.ma``.
    """
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


def check_tokens(name: str, tokens: Any, encoding: Any = None) -> None:
    """Checks that ``tokens`` are Tokens, and that they have what ``encoding`` prepares.

    Errors call them ``name``.
    """
    if not hasattr(tokens, "stamp"):
        raise ValueError(
            f"{name} must be Tokens, not {type(tokens).__name__}: pass encoding.tokens(positions)"
        )
    if encoding is not None and "prepare" in encoding.hooks() and tokens.stamp is None:
        raise ValueError(
            f"{name} were not prepared for {type(encoding).__name__}: make them by "
            "encoding.tokens(positions)"
        )


def checked_length(length, positions):
    """Returns a Python number as it is, and an array as float32."""
    if length is None:
        return None
    is_array = isinstance(length, jax.Array | np.ndarray)
    is_real = length.dtype.kind in "iuf" if is_array else is_whole(length)
    fits = not is_array or _broadcasts(length.shape, positions.shape[:2])
    is_known = not isinstance(length, jax.core.Tracer)
    if not is_real or not fits or (is_known and not _are_lengths(length)):
        B, T = positions.shape[:2]
        raise ValueError(
            f"length={length!r} must be a positive number of tokens, or an array of such numbers "
            f"that broadcasts against [{B}, {T}], at most 2**22: angles are exact up to there"
        )
    if not is_array:
        return length
    return jnp.asarray(length, jnp.float32)


def _are_lengths(numbers) -> bool:
    return bool(((np.asarray(numbers) >= 1) & (np.asarray(numbers) <= LONGEST)).all())


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


# Encodings


def check_encoding(encoding: Any, name: str = "encoding") -> None:
    """Checks that ``encoding`` is the encoding of one layer; errors call it ``name``."""
    if hasattr(encoding, "hooks") and not isinstance(encoding, type):
        return
    is_class = isinstance(encoding, type)
    kind = f"the class {encoding.__name__}" if is_class else type(encoding).__name__
    raise ValueError(
        f"{name} must be an Encoding, as posenc_jax.make gives it, not {kind}; of Layers take "
        "one layer's, layers.at(i)[0], and within a HeadShard its .encoding"
    )


def several_layers(encoding: Any) -> str:
    """Returns the message of the error that one layer's encoding is needed and this has several."""
    return (
        f"this {type(encoding).__name__} holds the parameters of {encoding.stacked} layers; "
        "give attention one layer's own, encoding.of_layer(i), or make it without num_layers="
    )


def check_made(encoding: Any, hook: str, made: Any, B: int, T: int) -> Any:
    """Returns what ``hook`` made of ``B`` sequences of ``T`` tokens, so that it can be cut.

    Raises:
      ValueError: it has an array without the tokens along axis 1.
    """
    shapes = [jnp.shape(x) for x in jax.tree.leaves(made)]
    # Sequences that share positions may still differ in length.
    bad = [s for s in shapes if s[1:2] != (T,) or (B != 1 and s[0] not in (1, B))]
    if not bad:
        return made
    what = f"an array of shape {bad[0]}"
    raise ValueError(
        f"{type(encoding).__name__}.{hook} returned {what}, but must return arrays with the "
        f"{T} tokens along axis 1, [{B}, {T}, ...], so that attention can take parts of them"
    )


# Attention


def check_one_layer(encoding: Any) -> None:
    """Checks that ``encoding`` is an encoding with the parameters of one layer."""
    check_encoding(encoding)
    if encoding.stacked is not None:
        raise ValueError(several_layers(encoding))


def check_shard(heads: Any, H: int, K: int, num_heads: int) -> None:
    """Checks that ``heads`` are the numbers of H query heads that read whole kv heads."""
    is_known = not isinstance(heads, jax.core.Tracer)
    is_array = isinstance(heads, jax.Array | np.ndarray)
    group = H // K
    is_right = is_array and jnp.issubdtype(heads.dtype, jnp.integer) and heads.shape == (H,)
    if is_right and is_known:
        numbers = np.asarray(heads)
        of_kv_heads = numbers.reshape(K, group) // group
        is_right = len(set(numbers.tolist())) == H and {*numbers.tolist()} <= {*range(num_heads)}
        is_right &= bool((of_kv_heads == of_kv_heads[:, :1]).all())
    if not is_right or num_heads % group:
        raise ValueError(
            f"heads={heads} of HeadShard must be an array of {H} numbers of query heads within "
            f"0..{num_heads - 1}, one for each head of the given queries, all different; {group} "
            f"heads in a row read one of the {K} kv heads given, so they must be the {group} of "
            "one kv head of the model: give all of them, or repeat keys and values (jnp.repeat)"
        )


def check_arrays(q_BTHC, k_BSKC, v_BSKC, is_rotated: bool) -> None:
    """Checks that the shapes and types of queries, keys and values fit."""
    shapes = _check_axes(q=q_BTHC, k=k_BSKC, v=v_BSKC)
    (B, _, H, C), (_, S, K, width) = q_BTHC.shape, k_BSKC.shape
    is_as_wide = width == C or is_rotated
    if k_BSKC.shape[0] != B or not is_as_wide or v_BSKC.shape[:3] != (B, S, K) or H % K:
        raise ValueError(
            f"{shapes} do not fit: q must be [B, T, H, C], and k and v [B, S, K, C] with H a "
            "multiple of K"
        )


def check_keys(k_BSKC, v_BSKC, num_heads: Any) -> None:
    """Checks that keys and values fit each other and the number of query heads."""
    shapes = _check_axes(k=k_BSKC, v=v_BSKC)
    if k_BSKC.shape[:3] != v_BSKC.shape[:3]:
        raise ValueError(f"{shapes} do not fit: both must be [B, S, K, C]")
    check_divides(num_kv_heads=k_BSKC.shape[2], num_heads=count_of("num_heads", num_heads))


def _check_axes(**arrays: Any) -> str:
    """Returns the shapes of arrays that must have four axes and floating-point elements."""
    shapes = ", ".join(f"{name} {np.shape(x)}" for name, x in arrays.items())
    for name, x in arrays.items():
        is_float = hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jnp.floating)
        if not is_float or x.ndim != 4 or 0 in x.shape:
            kind = x.dtype if hasattr(x, "dtype") else type(x).__name__
            raise ValueError(
                f"{shapes}: {name} must be a floating-point array [B, T, H, C] with at least one "
                f"token, and is {kind}"
            )
    return shapes


def check_weights(weights_BHTS, v_BSKC) -> None:
    """Checks that weights are ``[B, H, T, S]`` for values ``[B, S, K, C]``."""
    shapes = _check_axes(weights=weights_BHTS, v=v_BSKC)
    (B, H, _, S), (rows, keys, K, _) = weights_BHTS.shape, v_BSKC.shape
    if (rows, keys) != (B, S) or H % K:
        raise ValueError(
            f"{shapes} do not fit: weights must be [B, H, T, S], as logits returns them, and v "
            "[B, S, K, C] with H a multiple of K"
        )


def check_sides(encoding, q_BTHC, k_BSKC, q_tokens: Any, k_tokens: Any) -> None:
    """Checks that the tokens are those of the queries and keys."""
    check_side(encoding, "q_tokens", q_tokens, q_BTHC)
    check_side(encoding, "k_tokens", k_tokens, k_BSKC)
    if (q_tokens.segment_ids is None) != (k_tokens.segment_ids is None):
        raise ValueError("segment_ids must be given for both queries and keys, or for neither")


def check_side(encoding, name, tokens, x):
    """Checks that ``tokens`` are those of queries or keys ``x``, and ready to rotate them."""
    check_tokens(name, tokens)
    B, length = x.shape[:2]
    for what in ("positions", "segment_ids", "index"):
        numbers = getattr(tokens, what)
        if numbers is None:
            continue
        # Differences of unsigned or short numbers wrap, and short floats cannot count.
        kinds, types = ("if", "int32 or float32") if what == "positions" else ("i", "int32")
        counts = numbers.dtype.kind in kinds and numbers.dtype.itemsize >= 4
        if numbers.shape[:2] not in ((B, length), (1, length)) or not counts:
            shapes = " or ".join(f"[{batch}, {length}]" for batch in sorted({B, 1}, reverse=True))
            raise ValueError(
                f"{name} has {what} of shape {numbers.shape}, {numbers.dtype}, but q or k of shape "
                f"{x.shape}, which is [B, T, H, C], has {length} tokens in a batch of {B}: give "
                f"{shapes}, {types}, as encoding.tokens makes them"
            )
    tokens.check_made_by(encoding, name)
    if tokens.stage == "rotated":
        return
    if "observe" in encoding.hooks() and tokens.stage != "observed":
        raise ValueError(
            f"{type(encoding).__name__} reads the layer's input, and {name} come without it: pass "
            "attend(..., x=x_BTD), the array [B, T, D] that queries and keys are projected from"
        )
    check_tokens(name, tokens, encoding)


def check_scale(scale: Any) -> None:
    """Checks that ``scale``, the factor of all products, is one real number of float32."""
    if isinstance(scale, int | float):
        largest = float(np.finfo(np.float32).max)
        check_range(-largest, largest, scale=scale)
    elif not is_real(scale):
        raise ValueError(f"scale={scale!r} must be one real number, a float or an array []")


# Models


def check_rngs(rngs: Any) -> None:
    """Checks that ``rngs`` are Flax's."""
    if not isinstance(rngs, nnx.Rngs):
        raise ValueError(f"rngs={rngs!r} must be random numbers of Flax: pass nnx.Rngs(0)")


def check_types(rngs, norm_epsilon, **types) -> None:
    """Checks that ``rngs`` are Flax's, and that ``types`` are floating-point types."""
    check_range(0, norm_epsilon=norm_epsilon)
    check_rngs(rngs)
    for name, given in types.items():
        try:
            is_floating = jnp.issubdtype(jnp.dtype(given), jnp.floating)
        except TypeError:  # there is no such type
            is_floating = False
        if not is_floating:
            raise ValueError(f"{name}={given!r} must be a floating-point type, such as 'bfloat16'")


def sinks_of_layers(sinks, num_layers: int) -> list[str | None]:
    """Returns the sinks of each layer, given one for all or a sequence that layers repeat."""
    kinds = [sinks] if isinstance(sinks, str) or not hasattr(sinks, "__iter__") else list(sinks)
    check_divides(sinks=len(kinds), num_layers=num_layers)
    for kind in kinds:
        check_choice(("head", "token", None), sinks=kind)
    return kinds * (num_layers // len(kinds))


def check_heads(model_dim, num_heads, num_kv_heads, head_dim, qk_norm) -> None:
    """Checks that numbers of heads divide each other, and that ``qk_norm`` is known."""
    check_divides(num_kv_heads=num_kv_heads, num_heads=num_heads)
    if head_dim is None:
        check_divides(num_heads=num_heads, model_dim=model_dim)
    check_choice(("head", "all", None), qk_norm=qk_norm)
