"""Checks the arguments of attention."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from posenc_jax.attention.rule import Chunks
from posenc_jax.encoding import check_encoding
from posenc_jax.tokens import check_tokens, count_of, is_real, is_whole, several_layers


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
    if len(k_BSKC) != B or not is_as_wide or v_BSKC.shape[:3] != (B, S, K) or H % K:
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
        raise ValueError(f"{what} must be [B, T, H, C], not {shapes}")
    for name, x in arrays.items():
        if not jnp.issubdtype(x.dtype, jnp.floating):
            raise ValueError(f"{name} must be floating-point numbers, not {x.dtype}")
        if 0 in x.shape:
            raise ValueError(f"attention needs at least one query and one key, not {shapes}")
    return shapes


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


def check_scale(scale: Any) -> None:
    """Checks that ``scale`` is one real number."""
    largest = float(np.finfo(np.float32).max)
    is_finite = not isinstance(scale, int | float) or abs(scale) <= largest
    if not is_real(scale) or not is_finite:
        raise ValueError(
            f"scale={scale!r} must be one real number, a float or an array [], finite, which "
            "multiplies the products of all queries and keys"
        )
