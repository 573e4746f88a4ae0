"""Stacks the parameters of several layers along a leading axis, and takes one layer's out."""

from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, Self, TypeVar

import jax
from flax import nnx

from posenc_jax.checks import count_of

P = ParamSpec("P")
Scheme = TypeVar("Scheme", bound="Layered")


class Layered(nnx.Module):
    """Holds the parameters of one layer, of several, or one set that all layers share.

    Class attributes:
      per_layer: whether each layer has parameters of its own.

    Attributes:
      stacked: the number of layers whose parameters this instance holds along a leading axis, or
        None if it holds one layer's, or one set that all layers share. A stacked wrapper may hold
        an encoding that its layers share.
    """

    per_layer = False
    stacked: int | None = None

    @classmethod
    def of_layers(
        cls: Callable[P, Scheme], num_layers: int, *args: P.args, **settings: P.kwargs
    ) -> Scheme:
        """Returns this scheme for ``num_layers`` layers, each with initial values of its own.

        The parameters are stacked along a leading axis, and ``of_layer`` takes one layer's:
        ``FoX.of_layers(num_layers=12, num_heads=8, model_dim=512, rngs=nnx.Rngs(0))``. A scheme
        whose layers share their parameters (T5), or that has none (RoPE), is built once. All layers
        share an encoding that is already built, ``over=``.

        Args:
          num_layers: number of layers.
          **settings: the keywords of the constructor.
        """
        scheme: Any = cls
        num_layers = count_of("num_layers", num_layers)
        if not scheme.per_layer:
            return scheme(*args, **settings)
        given: dict[str, Any] = dict(settings)
        rngs, over = given.pop("rngs", None), given.get("over")

        def layer(rngs):
            return scheme(*args, **given, **({} if rngs is None else {"rngs": rngs}))

        return drawn_together(layer, num_layers, rngs, over)

    def parts(self) -> Iterator["Layered"]:
        """Yields this encoding, and the encodings that it holds."""
        yield self
        for part in vars(self).values():
            if isinstance(part, Layered):
                yield from part.parts()

    def of_layer(self, layer: int | jax.Array) -> Self:
        """Returns the encoding of one layer; the same encoding where layers share parameters."""
        if self.stacked is None:
            return self
        if not isinstance(layer, jax.core.Tracer):
            layer = count_of("layer", layer, 0, self.stacked - 1)

        def row(x):
            return x.of_layer(layer) if isinstance(x, Layered) else x[layer]

        rows = jax.tree.map(row, self, is_leaf=lambda x: isinstance(x, Layered) and x is not self)
        return rows.unstacked()

    def unstacked(self) -> Self:
        """Returns this encoding as one layer's, inside a ``scan`` or ``vmap`` over layers."""
        copy = jax.tree.map(lambda x: x, self)
        for part in copy.parts():
            if part.stacked is not None:
                part.stacked = None
        return copy


def drawn_together(
    build: Callable[[Any], Any], num_layers: int, rngs: nnx.Rngs | None, over: Any = None
) -> Any:
    """Returns what ``build(rngs)`` makes for each layer, stacked along a leading axis.

    Where ``over`` is an encoding that is built already, all layers share it.
    """
    # Without rngs, schemes that draw nothing (SSMax, LogScale) are stacked too.
    keys = jax.random.split(jax.random.key(0) if rngs is None else rngs.params(), num_layers)
    encoding = jax.vmap(lambda key: build(None if rngs is None else nnx.Rngs(key)))(keys)
    for part in encoding.parts():
        if jax.tree.leaves(part):
            part.stacked = num_layers
    if isinstance(over, Layered) and jax.tree.leaves(over):
        encoding.inner = over
    return encoding
