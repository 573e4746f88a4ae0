"""Checks what users pass, once, where it enters: errors that people make, each with its fix."""

import math
import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

# float64 positions may lose this much when they become float32: a thousandth of a token.
MOST_ROUNDING = 2.0**-10


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
    """Returns a Python number as it is, and an array as float32."""
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
    return jnp.asarray(length, jnp.float32)


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


# Encodings


def check_encoding(encoding: Any) -> None:
    """Checks that ``encoding`` is the encoding of one layer."""
    if hasattr(encoding, "hooks") and not isinstance(encoding, type):
        return
    is_class = isinstance(encoding, type)
    kind = f"the class {encoding.__name__}" if is_class else type(encoding).__name__
    raise ValueError(
        f"encoding must be an Encoding, as posenc_jax.make gives it, not {kind}; of Layers take "
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
    is_whole = is_array and jnp.issubdtype(heads.dtype, jnp.integer)
    numbers = set(np.ravel(heads).tolist()) if is_whole and is_known else {*range(H)}
    is_right = is_whole and heads.shape == (H,) and len(numbers) == H
    if not is_right or not numbers <= {*range(num_heads)}:
        raise ValueError(
            f"heads={heads} of HeadShard must be an array of {H} numbers of query heads within "
            f"0..{num_heads - 1}, one for each head of the given queries, all different"
        )
    group = H // K
    of_kv_heads = np.asarray(heads).reshape(K, group) // group if is_known else np.zeros((K, 1))
    if num_heads % group or (of_kv_heads != of_kv_heads[:, :1]).any():
        raise ValueError(
            f"heads={heads} of HeadShard, of num_heads={num_heads}, cut a group: {group} heads in "
            f"a row read one of the {K} kv heads given, so they must be the {group} of one kv head "
            "of the model; give all of them, or each head a kv head of its own (jnp.repeat)"
        )


def check_arrays(q_BTHC, k_BSKC, v_BSKC, is_rotated: bool) -> None:
    """Checks that the shapes and types of queries, keys and values fit."""
    shapes = _check_axes("queries, keys and values", {"q": q_BTHC, "k": k_BSKC, "v": v_BSKC})
    (B, _, H, C), (_, S, K, width) = q_BTHC.shape, k_BSKC.shape
    is_as_wide = width == C or is_rotated
    if k_BSKC.shape[0] != B or not is_as_wide or v_BSKC.shape[:3] != (B, S, K) or H % K:
        raise ValueError(
            f"{shapes} do not fit: q must be [B, T, H, C], and k and v [B, S, K, C] with H a "
            "multiple of K"
        )


def check_keys(k_BSKC, v_BSKC, num_heads: Any) -> None:
    """Checks that keys and values fit each other and the number of query heads."""
    shapes = _check_axes("keys and values", {"k": k_BSKC, "v": v_BSKC})
    if k_BSKC.shape[:3] != v_BSKC.shape[:3]:
        raise ValueError(f"{shapes} do not fit: both must be [B, S, K, C]")
    K = k_BSKC.shape[2]
    if count_of("num_heads", num_heads) % K:
        raise ValueError(
            f"num_heads={num_heads!r} must be the number of query heads, a multiple of the {K} kv "
            "heads of k and v"
        )


def _check_axes(what, arrays) -> str:
    """Returns the shapes of arrays that must have four axes and floating-point elements."""
    for name, x in arrays.items():
        if not hasattr(x, "dtype"):
            raise ValueError(
                f"{name} must be an array, such as jnp.asarray gives, not {type(x).__name__}"
            )
    shapes = ", ".join(f"{name} {jnp.shape(x)}" for name, x in arrays.items())
    if any(jnp.ndim(x) != 4 for x in arrays.values()):
        raise ValueError(f"{what} must have four axes, such as [B, T, H, C], not {shapes}")
    for name, x in arrays.items():
        if not jnp.issubdtype(x.dtype, jnp.floating):
            raise ValueError(f"{name} must be floating-point numbers, not {x.dtype}")
        if 0 in x.shape:
            raise ValueError(f"attention needs at least one query and one key, not {shapes}")
    return shapes


def check_weights(weights_BHTS, v_BSKC) -> None:
    """Checks that weights are ``[B, H, T, S]`` for values ``[B, S, K, C]``."""
    shapes = _check_axes("weights and values", {"weights": weights_BHTS, "v": v_BSKC})
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
        if numbers is not None and numbers.shape[:2] not in ((B, length), (1, length)):
            side = "queries" if name == "q_tokens" else "keys"
            shapes = " or ".join(f"[{batch}, {length}]" for batch in sorted({B, 1}, reverse=True))
            raise ValueError(
                f"{name} has {what} of shape {numbers.shape}, but {side} of shape {x.shape}, which "
                f"is [B, T, H, C], have {length} tokens in a batch of {B}: give {shapes}"
            )
        # Differences of unsigned or short numbers wrap, and short floats cannot count.
        kinds = "if" if what == "positions" else "i"
        if numbers is not None and (numbers.dtype.kind not in kinds or numbers.dtype.itemsize < 4):
            raise ValueError(
                f"{name} has {what} of type {numbers.dtype}, but they must be int32"
                f"{' or float32' if what == 'positions' else ''}, as encoding.tokens makes them"
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
    """Checks that ``scale`` is one real number."""
    largest = float(np.finfo(np.float32).max)
    is_finite = not isinstance(scale, int | float) or abs(scale) <= largest
    if not is_real(scale) or not is_finite:
        raise ValueError(
            f"scale={scale!r} must be one real number, a float or an array [], finite, which "
            "multiplies the products of all queries and keys"
        )


# Models


def check_sizes(**sizes: int | None) -> None:
    """Checks that sizes are whole numbers, 1 or more; None is allowed."""
    for name, size in sizes.items():
        if size is not None:
            count_of(name, size)


def check_types(rngs, norm_epsilon, **types) -> None:
    """Checks that ``rngs`` are Flax's, and that ``types`` are floating-point types."""
    if not is_real(norm_epsilon) or not 0 <= norm_epsilon < math.inf:
        raise ValueError(f"norm_epsilon={norm_epsilon!r} must be a number, 0 or more")
    if not isinstance(rngs, nnx.Rngs):
        raise ValueError(f"rngs={rngs!r} must be random numbers of Flax: pass nnx.Rngs(0)")
    for name, given in types.items():
        try:
            is_floating = jnp.issubdtype(jnp.dtype(given), jnp.floating)
        except TypeError:  # there is no such type
            is_floating = False
        if not is_floating:
            raise ValueError(f"{name}={given!r} must be a floating-point type, such as 'bfloat16'")


def sinks_of_layers(sinks, num_layers: int) -> list[str | None]:
    """Returns the sinks of each layer, given one for all or a sequence that layers repeat."""
    each = [sinks] if isinstance(sinks, str) or not hasattr(sinks, "__iter__") else list(sinks)
    if not each or num_layers % len(each):
        raise ValueError(
            f"sinks={sinks!r} must be one for all layers, or a sequence that repeats evenly over "
            f"num_layers={num_layers}"
        )
    for kind in each:
        if kind not in (None, "head", "token"):
            raise ValueError(
                f"sinks={kind!r} must be 'head' (one a head, learned), 'token' (computed for each "
                "query) or None"
            )
    return each * (num_layers // len(each))


def check_heads(model_dim, num_heads, num_kv_heads, head_dim, qk_norm) -> None:
    """Checks that numbers of heads divide each other, and that ``qk_norm`` is known."""
    if num_heads % num_kv_heads:
        raise ValueError(f"num_kv_heads={num_kv_heads} must divide num_heads={num_heads}")
    if head_dim is None and model_dim % num_heads:
        raise ValueError(
            f"num_heads={num_heads} must divide model_dim={model_dim}, or head_dim be given"
        )
    if qk_norm not in (None, "head", "all"):
        raise ValueError(
            f"qk_norm={qk_norm!r} must be 'head' (each head by itself), 'all' (all heads "
            "together) or None"
        )
