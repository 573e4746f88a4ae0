"""Describes the pattern of encodings and windows that the layers of a model repeat."""

from collections.abc import Sequence

import jax
from flax import nnx

from posenc_jax.attention import Chunks
from posenc_jax.attention.rule import check_window
from posenc_jax.checks import check_encoding, count_of
from posenc_jax.encoding import Encoding

Window = int | tuple[int | None, int | None] | Chunks | None


class Layers(nnx.Module):
    """Describes a pattern that the layers of a model repeat, first layer first.

    Args:
      encodings: one for each place of the pattern. An instance that occurs twice shares one set of
        parameters; a per-layer scheme is stacked over all layers that use it. None means a
        layer without attention, as some published models have; ``Transformer`` refuses it.
      windows: for each place the number of keys that a query sees, itself included; a pair for the
        numbers of keys before and after it, ``Chunks`` for the keys of its chunk, None for all.
    """

    def __init__(
        self, encodings: Sequence[Encoding | None], windows: Sequence[Window] | None = None
    ):
        distinct = {id(encoding): encoding for encoding in encodings if encoding is not None}
        for encoding in distinct.values():
            check_encoding(encoding)
        _check_shared_once([*distinct.values()])
        self.distinct = nnx.List(distinct.values())
        source = {identity: number for number, identity in enumerate(distinct)}
        self.pattern = tuple(source.get(id(encoding)) for encoding in encodings)
        windows = (None,) * len(self.pattern) if windows is None else windows
        if not self.pattern or not isinstance(windows, Sequence) or len(windows) != len(encodings):
            raise ValueError(
                f"a pattern needs encodings, and a list of a window (or None) for each: got "
                f"{len(self.pattern)} encodings and windows={windows!r}"
            )
        self.windows = tuple(map(_known, windows))

    @classmethod
    def of(cls, encoding: "Encoding | Sequence[Encoding] | Layers") -> "Layers":
        """Returns ``encoding`` as a pattern: one for all layers, a sequence, or one already."""
        if isinstance(encoding, Layers):
            return encoding
        if isinstance(encoding, str) or not isinstance(encoding, Sequence):
            check_encoding(encoding)
            encoding = [encoding]
        return cls(encoding)

    def over(self, num_layers: int, *, from_end: bool = False) -> "Layers":
        """Returns the layers of a model of ``num_layers``, which the pattern need not divide.

        Args:
          num_layers: number of layers of the model.
          from_end: whether the last layer has the last place of the pattern; otherwise the first
            layer has the first place.
        """
        num_layers = count_of("num_layers", num_layers)
        size = len(self.pattern)
        first = -num_layers % size if from_end else 0
        places = [(first + number) % size for number in range(num_layers)]
        encodings, windows = zip(*map(self.at, places), strict=True)
        return Layers(encodings, windows)

    def check(self, num_layers: int) -> None:
        """Checks that the pattern fits a model of ``num_layers``."""
        if num_layers % len(self.pattern):
            raise ValueError(
                f"a pattern of {len(self.pattern)} encodings does not repeat evenly over "
                f"{num_layers} layers; Layers(...).over({num_layers}) says what each has"
            )
        if None in self.pattern:
            raise ValueError(
                f"place {self.pattern.index(None)} of the pattern does not attend, and every layer "
                "of this model does: make Layers of the other places alone, or give it an encoding"
            )
        for i, encoding in enumerate(self.distinct):
            layers = self.pattern.count(i) * num_layers // len(self.pattern)
            has_parameters = bool(jax.tree.leaves(encoding))
            if encoding.per_layer and has_parameters and encoding.stacked != layers:
                raise ValueError(
                    f"{type(encoding).__name__} has parameters for each layer, and {layers} layers "
                    f"use it: build it with make(..., num_layers={layers}), which finds a class of "
                    'your own by its line in posenc_jax.REGISTRY, {"name": "module:Class"}'
                )

    def at(self, number: int) -> tuple[Encoding | None, Window]:
        """Returns the encoding and the window of layer ``number``, from 0; the pattern repeats."""
        place = count_of("number", number, 0) % len(self.pattern)
        source = self.pattern[place]
        return None if source is None else self.distinct[source], self.windows[place]

    def row(self, number: int) -> int:
        """Returns how many of the layers before layer ``number`` have its encoding."""
        repeat, place = divmod(number, len(self.pattern))
        source = self.pattern[place]
        return repeat * self.pattern.count(source) + self.pattern[:place].count(source)


def _check_shared_once(distinct):
    """Checks that no encoding is part of two others, where it would be duplicated."""
    parts = [part for encoding in distinct for part in encoding.parts() if jax.tree.leaves(part)]
    for part in parts:
        if sum(other is part for other in parts) > 1:
            raise ValueError(
                f"two encodings of the pattern share a {type(part).__name__}, which a model would "
                "hold twice: use one of them in all these layers (with num_layers= of all, if it "
                "has parameters for each), or build another for each"
            )


def _known(window: Window) -> Window:
    """Returns a window as attention takes it; it must not be traced."""
    check_window(window)
    if isinstance(window, tuple):
        left, right = (None if side is None else count_of("window", side, 0) for side in window)
        return left, right
    return window if isinstance(window, Chunks | None) else count_of("window", window)
