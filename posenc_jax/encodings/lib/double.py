"""Computes with numbers of 44 significant bits, each held as the sum of two float32 numbers.

At two million tokens the rounding of a frequency to float32 moves a channel pair by up to 0.1
radians, and traced lengths cannot be computed with in float64. The methods are due to Dekker (1971)
and Knuth.

A compiler may fuse a product into a sum, without rounding it in between, and may do so in one
place and not in another. So factors are cut into pieces of 12 bits, whose products are exact. The
results are the same however a program is compiled, on CPU, GPU and TPU.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_LN_2 = math.log(2)
# ln(m) = 2 artanh((m - 1) / (m + 1)) for m in [2^-1/2, 2^1/2], where the argument is below 0.172.
_ARTANH = [1 / (2 * n + 1) for n in range(10)]
# exp(x) for x in [-ln(2) / 2, ln(2) / 2].
_EXP = [1 / math.factorial(n) for n in range(14)]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Double:
    """Holds numbers as ``high + low``, where ``low`` is at most half an ulp of ``high``.

    The other operand of its arithmetic may be a number, a float64 NumPy array, a float32 JAX array
    or a ``Double``; shapes broadcast as in NumPy. It is differentiated as ``high + low``.
    """

    high: jax.Array
    low: jax.Array

    __array_ufunc__ = None  # Makes NumPy leave ``array * double`` to this class.

    @classmethod
    def of(cls, number: Any) -> "Double":
        """Converts a number or a NumPy array to 48 bits, or a JAX array as it is in float32."""
        if isinstance(number, Double):
            return number
        if isinstance(number, jax.Array):
            high = number.astype(jnp.float32)
            return cls(high, jnp.zeros_like(high))
        exact = np.asarray(number, np.float64)
        rounded = exact.astype(np.float32)
        rest = (exact - rounded).astype(np.float32)
        return cls(jnp.asarray(rounded), jnp.asarray(rest))

    def __add__(self, other: Any) -> "Double":
        return _added(*_aligned(self, other))

    def __mul__(self, other: Any) -> "Double":
        return _multiplied(*_aligned(self, other))

    def __truediv__(self, other: Any) -> "Double":
        if not isinstance(other, Double | jax.Array):
            return self * (1.0 / np.asarray(other, np.float64))
        other = Double.of(other)
        a, b = _aligned(self, other)
        quotient = a.high / b.high
        rest = -(other * quotient) + self
        return Double(*_sum(quotient, rest.high / b.high))

    def __neg__(self) -> "Double":
        return Double(-self.high, -self.low)

    def __sub__(self, other: Any) -> "Double":
        return self + (-Double.of(other))

    def __rtruediv__(self, other: Any) -> "Double":
        return Double.of(other) / self

    def where(self, condition: jax.Array, other: Any) -> "Double":
        """Returns these numbers where ``condition`` holds, and ``other`` elsewhere."""
        x, y = _aligned(self, other)
        return Double(jnp.where(condition, x.high, y.high), jnp.where(condition, x.low, y.low))

    __radd__ = __add__
    __rmul__ = __mul__


# Jitted, because each is dozens of operations: outside of a compiled program JAX would compile them
# one by one, and within one it traces and lowers them once for each shape.
@jax.jit
def _added(a: Double, b: Double) -> Double:
    high, rest = _sum(a.high, b.high)
    low, last = _sum(a.low, b.low)
    high, rest = _sum(high, rest + low)
    return Double(*_sum(high, rest + last))


@jax.jit
def _multiplied(a: Double, b: Double) -> Double:
    (a_0, a_1), (a_2, a_3) = _cut(a.high), _cut(a.low)
    (b_0, b_1), (b_2, b_3) = _cut(b.high), _cut(b.low)
    middle, rest = _sum(a_0 * b_1, a_1 * b_0)
    high, low = _sum(a_0 * b_0, middle)
    rest = rest + (a_1 * b_1 + (a_0 * b_2 + a_2 * b_0))
    rest = rest + (a_1 * b_2 + a_2 * b_1 + (a_0 * b_3 + a_3 * b_0))
    return Double(*_sum(high, low + rest))


@jax.jit
def log(x: Double) -> Double:
    """Returns the natural logarithm of positive numbers."""
    bits = jax.lax.bitcast_convert_type(x.high * np.float32(math.sqrt(2)), jnp.int32)
    exponent = (bits >> 23) - 127  # floor(log2)
    scale = _power_of_two(-exponent)
    mantissa = Double(x.high * scale, x.low * scale)
    ratio = (mantissa - 1.0) / (mantissa + 1.0)
    series = _polynomial(_ARTANH, ratio * ratio) * ratio
    return exponent.astype(jnp.float32) * Double.of(_LN_2) + series * 2.0


@jax.jit
def exp(x: Double) -> Double:
    """Returns e to the power of numbers between -80 and 80."""
    whole = jax.lax.stop_gradient(jnp.round(x.high * np.float32(1 / _LN_2)))
    series = _polynomial(_EXP, x - Double.of(_LN_2) * whole)
    scale = _power_of_two(whole.astype(jnp.int32))
    return Double(series.high * scale, series.low * scale)


def rounded(x: Double) -> Double:
    """Returns the nearest whole numbers, for positive numbers of any size."""
    whole = jnp.round(x.high)
    return Double.of(whole) + jnp.round((x.high - whole) + x.low)


def _polynomial(coefficients, x: Double) -> Double:
    """Evaluates by Horner's rule, in a loop that keeps the program short."""

    def step(value, coefficient):
        return value * x + coefficient, None

    zero = jax.tree.map(lambda part: 0 * part, x)
    return jax.lax.scan(step, zero, Double.of(coefficients[::-1]))[0]


def _sum(a, b):
    """Returns the float32 sum and its exact rounding error.

    A constant must be the second argument: XLA simplifies ``(constant + x) - constant`` to ``x``.
    """
    total = a + b
    b_in_total = total - a
    return total, (a - (total - b_in_total)) + (b - b_in_total)


def _cut(x):
    """Returns two numbers of 12 bits that add up to ``x``; the derivative is in the second."""
    bits = jax.lax.bitcast_convert_type(x, jnp.int32) & ~0xFFF
    front = jax.lax.stop_gradient(jax.lax.bitcast_convert_type(bits, jnp.float32))
    return front, x - front


def _power_of_two(exponent):
    return jax.lax.bitcast_convert_type((exponent + 127) << 23, jnp.float32)


def _aligned(x, y) -> tuple[Double, Double]:
    """Returns both with the same number of axes: JAX may refuse to broadcast a missing axis."""
    x, y = Double.of(x), Double.of(y)
    rank = max(x.high.ndim, y.high.ndim)

    def of_rank(part):
        return part.reshape((1,) * (rank - part.ndim) + part.shape)

    return jax.tree.map(of_rank, x), jax.tree.map(of_rank, y)
