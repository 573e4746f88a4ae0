"""Launches the Pallas kernels of flash attention, for any hooks on a tile."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from posenc_jax.attention import sinks as sink
from posenc_jax.attention.dense import FLOOR, TINY
from posenc_jax.attention.gradients import floats
from posenc_jax.attention.pallas.hooks import Hooks
from posenc_jax.attention.pallas.operands import Operand, flatten, is_float, map_operands
from posenc_jax.attention.pallas.program import on_matrices
from posenc_jax.attention.rule import Rule


@dataclasses.dataclass(frozen=True)
class Kernels:
    """Launches a program for each tile of queries, and backward for each tile of keys too."""

    hooks: Hooks
    qk_dtype: jnp.dtype
    v_dtype: jnp.dtype
    size: int  # of a tile
    B: int
    H: int
    T: int
    S: int
    rule: Rule
    platform: str  # "cpu", "cuda" or "tpu"

    def attention(self, ahead, q_side, k_side, sinks_BHT):
        """Returns float32 ``[B, H, T, C]``; the sinks may be None."""
        attention = jax.custom_vjp(lambda *operands: self._forward(*operands)[0])
        attention.defvjp(self._forward, self._backward)
        return attention(ahead, q_side, k_side, sinks_BHT)

    def _forward(self, ahead, q_side, k_side, sinks):
        rows, C = self.size, k_side["v"].array.shape[-1]

        def start():
            return jnp.full((rows, 1), FLOOR), jnp.zeros((rows, 1)), jnp.zeros((rows, C))

        def step(carry, ahead, q_side, k_side, i, j):
            def update(largest, sums, out):
                logits = self._logits(ahead, q_side, k_side, i, j)
                new = jnp.maximum(largest, logits.max(1, keepdims=True))
                weights, shrink = jnp.exp(logits - new), jnp.exp(largest - new)
                sums = shrink * sums + weights.sum(1, keepdims=True)
                mixed = self._mixed(ahead, weights, q_side, k_side)
                return new, sums, shrink * out + mixed

            return on_matrices(update, *carry)

        def finish(carry):
            largest, sums, out = carry
            sums = jnp.maximum(sums, TINY)
            return out / sums, largest + jnp.log(sums)

        q = q_side["q"]
        outputs = [
            dataclasses.replace(q, array=jax.ShapeDtypeStruct((*q.array.shape[:3], n), jnp.float32))
            for n in (C, 1)
        ]
        out, log_sums = self._launch(
            start, step, finish, outputs, ahead, q_side, k_side, self.T, self._columns
        )
        without = out[:, :, : self.T], log_sums[:, :, : self.T, 0]
        out, log_sums = sink.put_in(without, sinks)
        return out, (ahead, q_side, k_side, sinks, out, log_sums)

    def _backward(self, saved, d_out):
        ahead, q_side, k_side, sinks, out, log_sums = saved
        delta = (d_out * out).sum(-1)
        arrays = d_out, delta[..., None], log_sums[..., None]
        of_row = [Operand(x, axis=2, shape=(self.size, x.shape[-1])) for x in arrays]

        def gradients(carry, moving, rebuild, of_row, i, j):
            """Adds a tile's gradients by the floats of ``moving``."""
            d_out, delta, log_sums = of_row

            def tile(moving):
                ahead, q_side, k_side = rebuild(moving)
                logits = self._logits(ahead, q_side, k_side, i, j)
                weights = jnp.exp(logits - log_sums)
                mixed = self._mixed(ahead, weights, q_side, k_side)
                return mixed, weights.sum(1, keepdims=True)

            def pull(moving):
                return jax.tree.leaves(floats(jax.vjp(tile, moving)[1]((d_out, -delta))))

            return [a + b for a, b in zip(carry, on_matrices(pull, moving), strict=True)]

        def q_step(carry, ahead, here, k_side, i, j):
            q_side, of_row = here
            return gradients(carry, q_side, lambda q: (ahead, q, k_side), of_row, i, j)

        def k_step(carry, ahead, k_side, there, j, i):
            q_side, of_row = there
            moving = ahead, k_side
            return gradients(carry, moving, lambda m: (m[0], q_side, m[1]), of_row, i, j)

        d_q_side = self._launch_gradients(
            q_step, q_side, ahead, (q_side, of_row), k_side, self.T, self._columns
        )
        d_ahead, d_k_side = self._launch_gradients(
            k_step, (ahead, k_side), ahead, k_side, (q_side, of_row), self.S, self._rows
        )
        return d_ahead, d_q_side, d_k_side, sink.gradient(sinks, log_sums, delta)

    def _launch_gradients(self, step, moving, *launched):
        """Returns gradients by the floats of ``moving``, a part of ``ahead`` and ``here``."""
        operands, structure = flatten(moving)
        floats = [x for x in operands if is_float(x.array.dtype)]

        def start():
            return [jnp.zeros(x.shape) for x in floats]

        wholes = iter(self._launch(start, step, list, floats, *launched))
        gradients = [
            x.gradient(next(wholes)) if is_float(x.array.dtype) else None for x in operands
        ]
        return jax.tree.unflatten(structure, gradients)

    def _launch(self, start, step, finish, outputs, ahead, here, there, length, reach):
        """Runs ``step`` for each tile of ``here`` over all tiles of ``there`` within ``reach``.

        ``finish`` returns arrays like ``outputs``, for each head and sequence.
        """
        size, H = self.size, self.H
        ahead, here, there = map_operands(lambda x: x.padded(size), (ahead, here, there))
        operands, structure = flatten((ahead, here, there))
        count = pl.cdiv(length, size)
        specs = (
            map_operands(lambda x: x.spec(H), ahead),
            map_operands(lambda x: x.spec(H, size), here),
            map_operands(lambda x: x.spec(H), there),
        )
        results = [x.result(self.B, H, count, size) for x in outputs]

        def kernel(*refs):
            tile = pl.program_id(2)
            of_ahead, of_here, of_there = jax.tree.unflatten(structure, refs[: len(operands)])
            blocks = [
                map_operands(Operand.read, x, y) for x, y in ((ahead, of_ahead), (here, of_here))
            ]

            def body(other, carry):
                read = functools.partial(Operand.read, start=other * size, size=size)
                return step(carry, *blocks, map_operands(read, there, of_there), tile, other)

            first, end = reach(tile)
            final = finish(lax.fori_loop(first, end, body, start()))
            for ref, result in zip(refs[len(operands) :], final, strict=True):
                ref[...] = result.reshape(ref.shape)

        call = pl.pallas_call(
            kernel,
            grid=(self.B, H, count),
            in_specs=jax.tree.leaves(specs),
            out_specs=[spec for _, spec in results],
            out_shape=[shape for shape, _ in results],
            interpret=self.platform == "cpu",
            compiler_params=triton.CompilerParams() if self.platform == "cuda" else None,
        )
        return call(*(x.array for x in operands))

    def _logits(self, ahead, q_side, k_side, i, j):
        """Returns float32 ``[rows, columns]``, -inf where a query must not see a key."""
        q, k = (x.reshape(self.size, -1) for x in (q_side["q"], k_side["k"]))
        logits = _product(q, k, 1, self.qk_dtype) * ahead["scale"]
        logits = self.hooks.score(ahead, logits[None, None], q_side, k_side)
        row, column = (
            n * self.size + lax.broadcasted_iota(jnp.int32, (self.size, self.size), axis)
            for axis, n in enumerate((i, j))
        )
        visible = (row < self.T) & (column < self.S)
        q_index, k_index = q_side["index"].reshape(-1, 1), k_side["index"].reshape(1, -1)
        if self.rule.causal:
            visible &= q_index >= k_index
        if self.rule.window is not None:
            visible &= q_index - k_index < self.rule.window
        if q_side["segment_ids"] is not None:
            visible &= q_side["segment_ids"].reshape(-1, 1) == k_side["segment_ids"].reshape(1, -1)
        return jnp.where(visible, logits.reshape(visible.shape), -jnp.inf)

    def _mixed(self, ahead, weights, q_side, k_side):
        v = k_side["v"].reshape(self.size, -1)
        out = _product(weights, v, 0, self.v_dtype)
        out = self.hooks.mix(ahead, out[None, :, None], weights[None, None], q_side, k_side)
        return out.reshape(self.size, -1)

    def _columns(self, i):
        """Returns the first and the end of the tiles of keys that a tile of queries sees."""
        first: Any = 0
        last: Any = pl.cdiv(self.S, self.size)
        if self.rule.in_order and self.rule.causal:
            last = i + 1
        if self.rule.in_order and self.rule.window is not None:
            first = jnp.maximum(i * self.size - self.rule.window + 1, 0) // self.size
        return first, last

    def _rows(self, j):
        """Returns the first and the end of the tiles of queries that see a tile of keys."""
        first: Any = 0
        last: Any = pl.cdiv(self.T, self.size)
        if self.rule.in_order and self.rule.causal:
            first = j
        if self.rule.in_order and self.rule.window is not None:
            last = jnp.minimum(((j + 1) * self.size + self.rule.window - 2) // self.size + 1, last)
        return first, last


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _product(x, y, y_axis, dtype):
    """Multiplies float32 matrices over the last axis of x and ``y_axis`` of y, to float32.

    The operands are rounded to ``dtype``, in the gradients too. The custom rule keeps JAX from
    rounding each tile's gradient to ``dtype`` as well.
    """
    return _dot(x, 1, y, y_axis, dtype)


def _product_backward(y_axis, dtype, operands, d_out):
    x, y = operands
    d_x = _dot(d_out, 1, y, 1 - y_axis, dtype)
    d_y = _dot(d_out, 0, x, 0, dtype) if y_axis == 1 else _dot(x, 0, d_out, 0, dtype)
    return d_x, d_y


_product.defvjp(lambda x, y, *options: (_product(x, y, *options), (x, y)), _product_backward)


def _dot(x, x_axis, y, y_axis, dtype):
    dimensions = ((x_axis,), (y_axis,)), ((), ())
    x, y = x.astype(dtype), y.astype(dtype)
    return lax.dot_general(x, y, dimensions, preferred_element_type=jnp.float32)
