"""Compares every implementation of attention with dense attention, at the device's precision."""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.accelerator.attention import Shape, build, one_device, run
from posenc_jax.attention import IMPLEMENTATIONS

_BATCH, _HEADS, _HEAD_DIM = 2, 4, 32
# An implementation's error may be this many times that of dense attention at the device's own
# precision, and is always allowed the second number.
_TIMES, _LEAST = 4.0, 1e-4
# Implementations that run only some schemes, and raise a ValueError for the others.
_MAY_REFUSE = ("fused", "pallas")


def check(name: str, *, tokens: int) -> Iterator[dict[str, Any]]:
    """Yields the distance of each implementation of a scheme from exact attention.

    Exact attention is dense attention with float32 products. The distance of dense attention at the
    device's own precision is the error to be expected of any implementation. A distance is the
    largest over the output and all gradients, relative to the largest number of each exact array
    (or to 1, if that is larger).
    """
    shape, rng = Shape(tokens, _HEAD_DIM, _HEADS, _BATCH), np.random.default_rng(0)
    size = _BATCH, tokens, _HEADS, _HEAD_DIM
    operands = [jnp.asarray(rng.standard_normal(size), jnp.float32) for _ in range(3)]
    x_BTD = jnp.asarray(rng.standard_normal((_BATCH, tokens, shape.width)), jnp.float32)
    arguments = build(name, shape), *operands, x_BTD
    with jax.default_matmul_precision("highest"):
        exact = _values_and_gradients("dense", *arguments)
    floor = _distance(_values_and_gradients("dense", *arguments), exact)
    for implementation in IMPLEMENTATIONS:
        about = {"kind": "check", "scheme": name, "implementation": implementation}
        try:
            actual = _values_and_gradients(implementation, *arguments)
        except Exception as error:
            is_refusal = isinstance(error, ValueError) and implementation in _MAY_REFUSE
            reason = f"{type(error).__name__}: {str(error)[:200]}"
            yield about | {"is_ok": None if is_refusal else False, "reason": reason}
            continue
        distance = _distance(actual, exact)
        is_ok = distance <= max(_TIMES * floor, _LEAST)
        yield about | {"is_ok": bool(is_ok), "distance": distance, "dense": floor}


def _values_and_gradients(implementation, *arguments):
    program = jax.jit(functools.partial(_both, implementation))
    if implementation != "ring":
        with one_device():
            return program(*arguments)
    tokens = arguments[1].shape[1]
    devices = min(jax.device_count(), 4)
    while tokens % (2 * devices):
        devices -= 1
    kind = (jax.sharding.AxisType.Auto,)
    mesh = jax.make_mesh((devices,), ("context",), kind, devices=jax.devices()[:devices])
    with jax.set_mesh(mesh):
        return jax.device_get(program(*arguments))


def _both(implementation, encoding, q, k, v, x_BTD):
    def loss(encoding, q, k, v, x_BTD):
        out = run(encoding, q, k, v, x_BTD, implementation)
        return (out**2).sum(), out

    return jax.value_and_grad(loss, argnums=range(5), has_aux=True)(encoding, q, k, v, x_BTD)


def _distance(actual, exact) -> float:
    (_, out), gradients = jax.device_get(actual)
    (_, exact_out), exact_gradients = jax.device_get(exact)
    pairs = zip(
        jax.tree.leaves((out, gradients)),
        jax.tree.leaves((exact_out, exact_gradients)),
        strict=True,
    )
    # np.max returns NaN if a part is NaN; Python's max could drop it.
    parts = [float(np.abs(a - b).max() / max(1.0, np.abs(b).max())) for a, b in pairs]
    return float(np.max(parts))
