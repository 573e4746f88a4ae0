"""Describes the arrays that a Pallas kernel reads and writes, by tiles of tokens or whole."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["array"], meta_fields=["axis", "shape"]
)
@dataclasses.dataclass(frozen=True)
class Operand:
    """Describes an array that a kernel reads, ``[B or 1, H, K or 1, ...]`` of four axes or more."""

    array: Any  # the whole array, or its shape and type
    axis: int | None  # the axis of tokens, along which a kernel reads a tile at a time, or None
    shape: tuple[int, ...]  # the shape that hooks see, in a tile of one sequence and one head

    def padded(self, size):
        """Returns the operand with zeros after its tokens, up to a multiple of ``size``."""
        if self.axis is None:
            return self
        missing = -self.array.shape[self.axis] % size
        widths = [(0, missing if a == self.axis else 0) for a in range(self.array.ndim)]
        return dataclasses.replace(self, array=jnp.pad(self.array, widths))

    def spec(self, num_heads, size=None):
        """Returns the spec of one tile for each program, or without ``size`` of all tokens."""
        batch, heads = self.array.shape[:2]
        is_cut = [a == self.axis and size is not None for a in range(self.array.ndim)]
        block = [size if cut else n for cut, n in zip(is_cut, self.array.shape, strict=True)][2:]

        def index(b, h, i):
            tile = [i if cut else 0 for cut in is_cut[2:]]
            return b if batch > 1 else 0, h // (num_heads // heads), *tile

        return pl.BlockSpec((None, None, *block), index)

    def read(self, ref, start=None, size=None):
        """Returns the value in a tile, in float32 if it is of any float type."""
        if start is None:
            value = ref[...]
        else:
            at: list[Any] = [slice(None)] * (self.array.ndim - 2)
            at[(self.axis or 0) - 2] = pl.ds(pl.multiple_of(start, size), size)
            value = ref[tuple(at)]
        return value.astype(read_as(value.dtype)).reshape(self.shape)

    def result(self, B, H, count, size):
        """Returns shape and spec of the gradient in each sequence and head, float32.

        The gradient of an array without tokens comes in parts, one for each program.
        """
        rest = self.array.shape[2:]
        if self.axis is not None:
            shape = [count * size if a == self.axis else n for a, n in enumerate(self.array.shape)]
            whole = jax.ShapeDtypeStruct((B, H, *shape[2:]), jnp.float32)
            return whole, dataclasses.replace(self, array=whole).spec(H, size)
        parts = jax.ShapeDtypeStruct((B, H, count, *rest), jnp.float32)
        block = None, None, None, *rest
        return parts, pl.BlockSpec(block, lambda b, h, i: (b, h, i, *[0] * len(rest)))

    def gradient(self, whole):
        """Returns the gradient, given the array that a kernel returned for ``result``."""
        batch, heads = self.array.shape[:2]
        whole = whole.sum(2) if self.axis is None else whole
        whole = whole.sum(0, keepdims=True) if batch == 1 else whole
        whole = whole.reshape(len(whole), heads, -1, *whole.shape[2:]).sum(2)
        if self.axis is not None:
            whole = lax.slice_in_dim(whole, 0, self.array.shape[self.axis], axis=self.axis)
        return dataclasses.replace(self, array=whole.astype(self.array.dtype))


def read_as(dtype):
    """Returns the type in which hooks see values of ``dtype``."""
    return jnp.float32 if is_float(dtype) else dtype


def is_float(dtype):
    """Returns whether ``dtype`` is a floating-point type."""
    return jnp.issubdtype(dtype, jnp.floating)


def map_operands(function, operands, *others):
    """Calls ``function`` with each operand of a tree."""
    return jax.tree.map(function, operands, *others, is_leaf=_is_operand)


def flatten(operands):
    """Returns the operands of a tree, and its structure."""
    return jax.tree.flatten(operands, is_leaf=_is_operand)


def _is_operand(x):
    return isinstance(x, Operand)


def widened(x_BTHC):
    """Returns heads with zeros after their channels, up to a power of 2."""
    C = x_BTHC.shape[-1]
    return jnp.pad(x_BTHC, ((0, 0), (0, 0), (0, 0), (0, pl.next_power_of_2(C) - C)))


def of_heads(x_BTHC, size):
    """Returns the operand of queries, keys or values."""
    shape = (1, size, 1, x_BTHC.shape[-1])
    return Operand(x_BTHC.swapaxes(1, 2), axis=2, shape=shape)


def of_tokens(x, size):
    """Returns the operand of an array with the tokens along axis 1, ``[B or 1, T, ...]``."""
    if x.ndim == 2:
        return Operand(x[:, None, None], axis=3, shape=(1, size))
    return Operand(x[:, None], axis=2, shape=(1, size, *x.shape[2:]))


def of_parameters(x_HX):
    """Returns the operand of an array with one row for each head."""
    rest = (1,) * (3 - x_HX.ndim) + x_HX.shape[1:]
    return Operand(x_HX.reshape(1, len(x_HX), *rest), axis=None, shape=x_HX.shape[1:])
