"""Calls the hooks of an encoding, and refuses what they must not return.

Arrays of another shape would be broadcast, or cut in the wrong places, and become numbers.
"""

from typing import Any

import jax
import jax.numpy as jnp


def call(encoding: Any, hook: str, x: Any, *more: Any, axes: int | None = None) -> Any:
    """Returns what ``hook`` makes of the array ``x``, of the same shape.

    With ``axes`` only so many leading axes must be the same.

    Raises:
      ValueError: the shape is another one, or numbers became no numbers.
    """
    out = getattr(encoding, hook)(x, *more)
    is_array = hasattr(out, "dtype") and hasattr(out, "shape")
    if is_array and out.shape[:axes] == x.shape[:axes] and (_is_float(out) or not _is_float(x)):
        return out
    what = f"{out.dtype} of shape {out.shape}" if is_array else _kind(out)
    needed = ", ".join([*map(str, x.shape[:axes]), *["..."] * (axes is not None)])
    kind = "floating-point numbers" if _is_float(x) else "numbers"
    raise ValueError(
        f"{type(encoding).__name__}.{hook} returned {what}, but must return {kind} [{needed}]"
    )


def check_prepared(encoding: Any, hook: str, prepared: Any, B: int, T: int) -> None:
    """Checks that what ``hook`` made of ``B`` sequences of ``T`` tokens can be cut into parts.

    Raises:
      ValueError: it is None, or has an array without the tokens along axis 1.
    """
    shapes = [jnp.shape(x) for x in jax.tree.leaves(prepared)]
    # Sequences that share positions may still differ in length.
    bad = [s for s in shapes if s[1:2] != (T,) or (B > 1 and s[0] not in (1, B))]
    if prepared is not None and not bad:
        return
    what = f"an array of shape {bad[0]}" if bad else _kind(prepared)
    raise ValueError(
        f"{type(encoding).__name__}.{hook} returned {what}, but must return arrays with the "
        f"{T} tokens along axis 1, [{B}, {T}, ...], so that attention can take parts of them"
    )


def _is_float(x) -> bool:
    return jnp.issubdtype(x.dtype, jnp.floating)


def _kind(out) -> str:
    return "None (is its return missing?)" if out is None else type(out).__name__
