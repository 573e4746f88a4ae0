"""Calls the hooks of an encoding, and checks what they return.

Arrays of a wrong shape would be broadcast, or cut in the wrong places, without an error.
"""

from typing import Any

import jax.numpy as jnp

# The leading axes that stay the same; other hooks return the whole shape that they are given.
_SAME_AXES = {"rotate": 3, "rotate_values": 3, "rotate_back": 3}


def call(encoding: Any, hook: str, x: Any, *more: Any) -> Any:
    """Returns what ``hook`` makes of the array ``x``.

    Raises:
      ValueError: the shape is another one, or numbers became no numbers.
    """
    axes = _SAME_AXES.get(hook)
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


def _is_float(x) -> bool:
    return jnp.issubdtype(x.dtype, jnp.floating)


def _kind(out) -> str:
    return "None (is its return missing?)" if out is None else type(out).__name__
