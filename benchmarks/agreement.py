"""Compares every implementation of attention with dense attention, at the device's precision."""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType

from benchmarks.attention import Shape, build, one_device, operands, run
from posenc_jax.attention import IMPLEMENTATIONS

# An implementation's error may be this many times that of dense attention at the device's own
# precision, and is always allowed the second number.
_TIMES, _LEAST = 4.0, 1e-4
# Implementations that run only some schemes, and raise a ValueError for the others.
_MAY_REFUSE = ("fused", "ulysses")
OVER_CONTEXT = ("gather", "ulysses", "ring")


def check(name: str, tokens: int) -> Iterator[dict[str, Any]]:
    """Yields the distance of each implementation of a scheme from exact attention.

    Exact attention is dense attention with float32 products. The distance of dense attention at the
    device's own precision is the error to be expected of any implementation. A distance is the
    largest over the output and all gradients, relative to the largest number of each exact array
    (or to 1, if that is larger).
    """
    shape = Shape(tokens, head_dim=32, heads=4, batch=2, dtype="float32")
    arguments = build(name, shape), *operands(shape)
    with jax.default_matmul_precision("highest"):
        exact = _values_and_gradients("dense", *arguments)
    floor = _distance(_values_and_gradients("dense", *arguments), exact)
    for who in IMPLEMENTATIONS:
        about = {"kind": "check", "scheme": name, "who": who}
        try:
            distance = _distance(_values_and_gradients(who, *arguments), exact)
        except Exception as error:
            is_refusal = isinstance(error, ValueError) and who in _MAY_REFUSE
            verdict = "refused" if is_refusal else f"**{type(error).__name__}: {error}**"[:200]
            yield about | {"is_ok": None if is_refusal else False, "verdict": verdict}
            continue
        is_ok = bool(distance <= max(_TIMES * floor, _LEAST))  # False for NaN
        yield about | {"is_ok": is_ok, "verdict": f"{distance:.1e}" if is_ok else f"**{distance}**"}


def _values_and_gradients(implementation, *arguments):
    def loss(*arguments):
        out = run(*arguments, implementation)
        return (out**2).sum(), out

    program = jax.jit(jax.value_and_grad(loss, argnums=range(len(arguments)), has_aux=True))
    with _tokens_apart(arguments[1].shape[1]) if implementation in OVER_CONTEXT else one_device():
        return jax.device_get(program(*arguments))


def _tokens_apart(tokens: int):
    """Returns a context for at most four devices, whose number divides the tokens."""
    count = min(jax.device_count(), 4)
    while tokens % (2 * count):
        count -= 1
    chosen = jax.devices()[:count]
    return jax.set_mesh(jax.make_mesh((count,), ("context",), (AxisType.Auto,), devices=chosen))


def _distance(actual, exact) -> float:
    pairs = zip(jax.tree.leaves(actual), jax.tree.leaves(exact), strict=True)
    # np.max returns NaN if a part is NaN; Python's max could drop it.
    return float(np.max([np.abs(a - b).max() / max(1.0, np.abs(b).max()) for a, b in pairs]))
