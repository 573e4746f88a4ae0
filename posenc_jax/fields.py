"""Checks values of keywords; errors name the keyword, its value and what is allowed."""

import math
import operator
import sys
from collections.abc import Collection
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


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
