"""Defines what one layer of the decoder uses, and stacks layers for ``lax.scan``."""

import jax
import jax.numpy as jnp
from flax import nnx

from posenc_jax.encoding import Encoding
from posenc_jax.model.block import Block
from posenc_jax.model.layers import Window

# Where windows are traced, a window that is wider than any text means no window.
_WIDEST = 2**30


class Layer(nnx.Module):
    """Holds what one layer of the model uses: its block, its encoding and its window.

    Attributes:
      block: the parameters of the layer.
      own: the encoding that belongs to this layer alone, or None where layers share it.
      sources: which of the model's distinct encodings the layer uses (static).
      windows: which keys a query sees, as ``Layers`` has it (static).
      rows: which of an encoding's parameters for each layer it uses, 0 if there are none (static).

    Under ``scan`` a layer holds all layers in the same place of the pattern, and its arrays have a
    leading axis of repeats of the pattern. ``sources`` and ``windows`` have one entry, or one for
    each repeat where layers that differ only in numbers share a place, and so has
    ``rows``.
    """

    def __init__(
        self,
        block: Block,
        own: Encoding | None,
        sources: tuple[int, ...],
        windows: tuple[Window, ...],
        rows: tuple[int, ...],
    ):
        self.block = block
        self.own = own
        self.sources = sources
        self.windows = windows
        self.rows = rows

    def at(self, repeat: int) -> tuple[int, Window]:
        """Returns the source and the window of one repeat."""
        return self.sources[repeat % len(self.sources)], self.windows[repeat % len(self.windows)]

    def encoding(self, encodings, repeat) -> Encoding:
        """Returns the encoding of one repeat, the layer's own or among those of the model."""
        if self.own is not None:
            return self.own.unstacked()
        row = self.rows[0] if len(self.rows) == 1 else jnp.asarray(self.rows)[repeat]
        return encodings[self.sources[0]].of_layer(row)

    def side(self, sides, repeat):
        """Returns the encoding's entry of ``sides``, and the window, for one repeat.

        Repeats may differ in the tables that their encodings prepare, and in windows. ``repeat``
        may be traced.
        """
        side = sides[self.sources[0]]
        if len(self.sources) > 1:
            source = jnp.asarray(self.sources)[repeat]
            # Layers that share one program read tokens made for different encodings.
            sides = [_for_any(side) for side in sides]
            side = jax.tree.map(lambda *each: jnp.stack(each)[source], *sides)
        if len(self.windows) == 1:
            return side, self.windows[0]
        widths = [_WIDEST if window is None else window for window in self.windows]
        return side, jnp.asarray(widths, jnp.int32)[repeat]


def _for_any(side):
    """Returns tokens that say of no encoding that they were made for it."""
    return tuple(None if x is None else x.of_any() for x in side)


def one_if_equal(values: tuple) -> tuple:
    """Returns the values of all repeats, or only the first if all are the same."""
    return values if len(set(values)) > 1 else values[:1]


def first_of(encoding, is_stacked):
    """Returns the first layer's encoding of a stack, or ``encoding`` if it is not stacked."""
    return jax.tree.map(lambda p: p[0], encoding).unstacked() if is_stacked else encoding


def stack(modules):
    """Returns modules of one structure as one, their arrays along a leading axis."""
    return jax.tree.map(lambda *arrays: jnp.stack(arrays), *modules)


def unstack(tree, count: int) -> list:
    """Cuts ``tree`` along its leading axis."""
    return [jax.tree.map(lambda p, i=i: p[i], tree) for i in range(count)]
