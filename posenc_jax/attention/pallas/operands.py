"""What a Pallas kernel reads and writes: arrays by tiles of tokens, or whole."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["array"], meta_fields=["axis", "shape"]
)
@dataclasses.dataclass(frozen=True)
class Operand:
    """What a kernel reads: ``[B or 1, H, K or 1, ...]`` of at least four axes.

    Attributes:
      axis: the axis of tokens, of which a kernel reads a tile at a time, or None.
      shape: what the hooks see of it, in a tile of one sequence and one head.
    """

    array: jax.Array
    axis: int | None
    shape: tuple[int, ...]

    def padded(self, size):
        if self.axis is None:
            return self
        missing = -self.array.shape[self.axis] % size
        widths = [(0, missing if a == self.axis else 0) for a in range(self.array.ndim)]
        return dataclasses.replace(self, array=jnp.pad(self.array, widths))

    def block(self, size):
        """The shape a kernel reads of a tile."""
        return tuple(size if a == self.axis else n for a, n in enumerate(self.array.shape))[2:]

    def spec(self, num_heads, size=None):
        """Of a tile a program, or without ``size`` of all tokens."""
        batch, heads = self.array.shape[:2]
        block = self.array.shape[2:] if size is None else self.block(size)

        def index(b, h, i):
            tile = [
                i if a == self.axis and size is not None else 0 for a in range(2, self.array.ndim)
            ]
            return b if batch > 1 else 0, h // (num_heads // heads), *tile

        return pl.BlockSpec((None, None, *block), index)

    def read(self, ref, start=None, size=None):
        """Its value in a tile, in float32 if it is of any float type."""
        if start is None:
            value = ref[...]
        else:
            at = [slice(None)] * (self.array.ndim - 2)
            at[self.axis - 2] = pl.ds(pl.multiple_of(start, size), size)
            value = ref[tuple(at)]
        return value.astype(read_as(value.dtype)).reshape(self.shape)

    def result(self, B, H, count, size):
        """Shape and spec of its gradient in each sequence and head, float32.

        That of what is not of tokens is in parts, one for each program.
        """
        rest = self.array.shape[2:]
        if self.axis is not None:
            rest = [count * size if a == self.axis else n for a, n in enumerate(self.array.shape)][
                2:
            ]
            whole = jax.ShapeDtypeStruct((B, H, *rest), jnp.float32)
            return whole, dataclasses.replace(self, array=whole).spec(H, size)
        parts = jax.ShapeDtypeStruct((B, H, count, *rest), jnp.float32)
        block = None, None, None, *rest
        return parts, pl.BlockSpec(block, lambda b, h, i: (b, h, i, *[0] * len(rest)))

    def gradient(self, whole):
        """Its gradient, made of what a kernel returned for ``result``."""
        batch, heads = self.array.shape[:2]
        whole = whole.sum(2) if self.axis is None else whole
        whole = whole.sum(0, keepdims=True) if batch == 1 else whole
        whole = whole.reshape(len(whole), heads, -1, *whole.shape[2:]).sum(2)
        if self.axis is not None:
            whole = lax.slice_in_dim(whole, 0, self.array.shape[self.axis], axis=self.axis)
        return dataclasses.replace(self, array=whole.astype(self.array.dtype))


def read_as(dtype):
    return jnp.float32 if is_float(dtype) else dtype


def is_float(dtype):
    return jnp.issubdtype(dtype, jnp.floating)


def map_operands(function, operands, *others):
    return jax.tree.map(function, operands, *others, is_leaf=_is_operand)


def flatten(operands):
    return jax.tree.flatten(operands, is_leaf=_is_operand)


def _is_operand(x):
    return isinstance(x, Operand)


def widened(x_BTHC):
    C = x_BTHC.shape[-1]
    return jnp.pad(x_BTHC, ((0, 0), (0, 0), (0, 0), (0, pl.next_power_of_2(C) - C)))


def of_heads(x_BTHC, size):
    shape = (1, size, 1, x_BTHC.shape[-1])
    return Operand(x_BTHC.swapaxes(1, 2), axis=2, shape=shape)


def of_tokens(x, size):
    """Returns the operand of an array with the tokens along axis 1, ``[B or 1, T, ...]``."""
    if x.ndim == 2:
        return Operand(x[:, None, None], axis=3, shape=(1, size))
    return Operand(x[:, None], axis=2, shape=(1, size, *x.shape[2:]))


def of_parameters(x_HX):
    """Of one array a head."""
    rest = (1,) * (3 - x_HX.ndim) + x_HX.shape[1:]
    return Operand(x_HX.reshape(1, len(x_HX), *rest), axis=None, shape=x_HX.shape[1:])
