"""Says who holds the parameters of encodings, and stacks those of several layers.

A scheme with parameters for each layer is stacked as the blocks are: ``jax.vmap`` draws all of
them, along a leading axis, and under ``lax.scan`` the loop runs over both. So there are three cases
of who holds the parameters of an encoding in a model:

- One set for all layers (T5), or none (RoPE): ``Transformer.encodings`` holds it, and the model
  passes it into the blocks. Modules are plain pytrees here, so an encoding in two blocks would be
  two different ones after a step of training.
- A set for each layer (FoX): each layer's is its ``Layer.own``, and ``Transformer.encodings`` has
  None in its place.
- A set for each layer over a shared one (LogScale over LeRoPE in Mistral Large 4):
  ``Transformer.encodings`` holds the whole stack, and a layer takes its row, ``Layer.rows``.

``Encoding.of_layers`` stacks, ``Encoding.stacked`` says how many layers an encoding holds, and
``Encoding.of_layer`` returns one.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from posenc_jax.encoding import Encoding
from posenc_jax.model.layers import Layers


def check_stackable(name: str, encoding: Encoding, over: Any) -> None:
    """Checks that layers can have parameters of their own, as ``make(name, over=over)`` drew them.

    No stacked parameter may be read before the first layer, and none may be of an encoding that is
    built already.
    """
    while hasattr(over, "keys"):
        over = over.get("over")
    if isinstance(over, Encoding) and jax.tree.leaves(over):
        raise ValueError(
            f"make({name!r}, num_layers=...) would copy the parameters of the {type(over).__name__}"
            " in the mapping over= to each layer: give over= what make returns for the mapping, "
            "and all layers share it"
        )
    _check_early(name, encoding)


def _check_early(name, encoding):
    """Checks that no stacked parameter is read before the first layer, once for all layers."""
    inner = [part for part in vars(encoding).values() if isinstance(part, Encoding)]
    count = len(jax.tree.leaves(encoding)) - sum(len(jax.tree.leaves(part)) for part in inner)
    early = [*filter(encoding.overrides, ("aux_loss", "embed", "moved", "prepare"))]
    if count and early and not type(encoding).per_layer:
        raise ValueError(
            f"make({name!r}, num_layers=...) gives each layer its own parameters, but "
            f"{type(encoding).__name__}, beneath it, has one set for all layers, needed before the "
            f"first layer ({', '.join(early)}): build that first, without num_layers=, and give "
            "over= what make returns; all layers then share it"
        )
    for part in inner:
        _check_early(name, part)


def is_by_layer(encoding: Encoding) -> bool:
    """Returns whether every parameter of the encoding belongs to one layer."""
    parts = [part for part in encoding.parts() if jax.tree.leaves(part)]
    return encoding.per_layer and all(part.stacked is not None for part in parts)


class Layer(nnx.Module):
    """Holds the block, the encoding and the window of one layer.

    Under ``scan`` it stands for all layers in one place of the pattern, and its arrays have a
    leading axis of repeats of the pattern.

    Attributes:
      block: the parameters of the layer.
      own: the encoding of this layer alone, or None where layers share parameters. Checkpoints
        have this name in the paths of arrays, so a new name would make old ones unreadable.
      source: which of the model's distinct encodings the layer uses (static).
      window: which keys a query sees, as ``Layers`` has it (static).
      rows: for each repeat, which of an encoding's parameters for each layer it uses (static).
    """

    def __init__(self, pattern: Layers, block: Any, numbers: Sequence[int], scan: bool):
        place = numbers[0] % len(pattern.pattern)
        encoding, self.window = pattern.at(place)
        source = pattern.pattern[place]
        assert encoding is not None and source is not None  # As ``check`` found.
        self.source = source
        self.block = block
        self.rows = tuple(map(pattern.row, numbers))
        encodings = [encoding.of_layer(row) if is_by_layer(encoding) else None for row in self.rows]
        self.own = stack(encodings) if scan else encodings[0]

    def encoding(self, encodings: Sequence[Encoding], repeat) -> Encoding:
        """Returns the encoding of this layer in one repeat of the pattern, which may be traced."""
        if self.own is not None:
            return self.own
        encoding = encodings[self.source]
        if encoding.stacked is None:
            return encoding
        row = self.rows[0] if len(self.rows) == 1 else jnp.asarray(self.rows)[repeat]
        return encoding.of_layer(row)


def drawn_blocks(block, keys, kinds: list) -> list:
    """Returns ``block(key, kind)`` of each layer, and draws all blocks of one kind together."""
    blocks: dict[int, Any] = {}
    for kind in dict.fromkeys(kinds):
        numbers = [number for number, other in enumerate(kinds) if other == kind]
        together = jax.vmap(functools.partial(block, sinks=kind))(keys[np.asarray(numbers)])
        blocks |= dict(zip(numbers, unstack(together, len(numbers)), strict=True))
    return [blocks[number] for number in range(len(kinds))]


def stack(modules):
    """Returns modules of one structure as one, their arrays along a leading axis."""
    return jax.tree.map(lambda *arrays: jnp.stack(arrays), *modules)


def unstack(tree, count: int) -> list:
    """Cuts ``tree`` along its leading axis."""
    return [jax.tree.map(lambda p, i=i: p[i], tree) for i in range(count)]


def by_place(blocks: list, places: int) -> list:
    """Returns the blocks of all layers stacked by place of the pattern."""
    kinds: list[Any] = list(map(jax.tree.structure, blocks))
    if any(kind != kinds[number % places] for number, kind in enumerate(kinds)):
        raise ValueError(
            f"scan=True compiles a pattern of {places} layers once, and layers of one place in it "
            "differ in their sinks: name as many encodings in the pattern as it takes until sinks "
            "repeat too, such as [rope, rope] for two sinks"
        )
    return [stack(blocks[place::places]) for place in range(places)]


def by_layer(blocks: list, num_layers: int) -> list:
    """Returns the blocks of all layers that ``by_place`` stacked, first layer first."""
    repeats = num_layers // len(blocks)
    of_places = [unstack(block, repeats) for block in blocks]
    return [block for of_repeat in zip(*of_places, strict=True) for block in of_repeat]
