"""Describes the pattern of encodings and windows that the layers of a model use."""

from collections.abc import Iterator, Sequence

import jax
from flax import nnx

from posenc_jax.attention import Chunks
from posenc_jax.attention.checks import check_window
from posenc_jax.encoding import Encoding, check_encoding
from posenc_jax.tokens import check_flags, count_of

Window = int | Chunks | None


class Layers(nnx.Module):
    """Describes a pattern that the layers of a model repeat, first layer first.

    Args:
      encodings: one for each place of the pattern. An instance that occurs twice shares one set of
        parameters; a per-layer scheme is stacked over all layers that use it. None means a
        layer without attention, as some published models have; ``Transformer`` refuses it.
      windows: number of keys that a query sees in each place, itself included; ``Chunks`` for those
        of its own chunk, None for all of them.
    """

    def __init__(
        self, encodings: Sequence[Encoding | None], windows: Sequence[Window] | None = None
    ):
        # A string is a sequence too, of letters.
        if isinstance(encodings, str | Encoding) or not isinstance(encodings, Sequence):
            raise ValueError(
                f"encodings must be a list of them, such as [encoding], not a "
                f"{type(encodings).__name__}"
            )
        distinct: list[Encoding] = []
        for each in encodings:
            if each is not None:
                check_encoding(each)
            if each is not None and not any(each is other for other in distinct):
                distinct.append(each)
        _check_shared_once(distinct)
        self.distinct = nnx.List(distinct)
        self.pattern = tuple(
            None if each is None else next(i for i, x in enumerate(distinct) if x is each)
            for each in encodings
        )
        if windows is not None and not hasattr(windows, "__iter__"):
            raise ValueError(f"windows={windows!r} must be a list of them, such as [{windows!r}]")
        windows = (None,) * len(self.pattern) if windows is None else tuple(windows)
        if not self.pattern or len(windows) != len(self.pattern):
            raise ValueError(
                f"a pattern needs encodings, and a window (or None) for each: got "
                f"{len(self.pattern)} encodings and {len(windows)} windows"
            )
        self.windows = tuple(map(_known, windows))

    @classmethod
    def of(cls, encoding: "Encoding | Sequence[Encoding] | Layers") -> "Layers":
        """Returns ``encoding`` as a pattern: one for all layers, a sequence, or one already."""
        if isinstance(encoding, Layers):
            return encoding
        if isinstance(encoding, Encoding):
            return cls([encoding])
        if isinstance(encoding, str) or not isinstance(encoding, Sequence):
            check_encoding(encoding)
        return cls(encoding)

    def over(self, num_layers: int, *, from_end: bool = False) -> "Layers":
        """Returns the layers of a model of ``num_layers``, which the pattern need not divide.

        Args:
          num_layers: number of layers of the model.
          from_end: whether the last layer has the last place of the pattern; otherwise the first
            layer has the first place.
        """
        num_layers = count_of("num_layers", num_layers)
        check_flags(from_end=from_end)
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
        for i, each in enumerate(self.distinct):
            layers = self.pattern.count(i) * num_layers // len(self.pattern)
            has_parameters = bool(jax.tree.leaves(each))
            if each.per_layer and has_parameters and each.stacked != layers:
                raise ValueError(
                    f"{type(each).__name__} has parameters for each layer and is used by {layers}: "
                    f"build it with make(..., num_layers={layers})"
                )

    def alike(self) -> bool:
        """Returns whether one compiled block can run every layer, given its tables and window."""
        same_program = all(self.distinct[0].turns_like(each) for each in self.distinct)
        return same_program and not any(isinstance(window, Chunks) for window in self.windows)

    def at(self, number: int) -> tuple[Encoding | None, Window]:
        """Returns the encoding and the window of layer ``number``, from 0; the pattern repeats."""
        place = count_of("number", number, 0) % len(self.pattern)
        source = self.pattern[place]
        return None if source is None else self.distinct[source], self.windows[place]

    def of_layer(self, number: int) -> tuple[Encoding | None, int, Window]:
        """Returns what layer ``number`` uses: its own encoding, the source, and the window.

        The encoding is None where layers share parameters; the source is its index in ``distinct``.
        """
        place = number % len(self.pattern)
        source = self.pattern[place]
        assert source is not None  # As ``check`` found.
        encoding = self.distinct[source]
        own = encoding.of_layer(self.row(number)) if has_own(encoding) else None
        return own, source, self.windows[place]

    def row(self, number: int) -> int:
        """Returns how many layers before layer ``number`` use the encoding that it uses."""
        repeat, place = divmod(number, len(self.pattern))
        source = self.pattern[place]
        return repeat * self.pattern.count(source) + self.pattern[:place].count(source)


def _check_shared_once(distinct):
    """Checks that no encoding is part of two others, where it would be duplicated."""
    parts = [part for each in distinct for part in _parts(each) if jax.tree.leaves(part)]
    for part in parts:
        if sum(other is part for other in parts) > 1:
            raise ValueError(
                f"two encodings of the pattern share a {type(part).__name__}, which a model would "
                "hold twice: use one of them in all these layers (with num_layers= of all, if it "
                "has parameters for each), or build another for each"
            )


def _parts(encoding: Encoding) -> Iterator[Encoding]:
    """Yields the encoding and all that it is made of."""
    yield encoding
    for part in vars(encoding).values():
        if isinstance(part, Encoding):
            yield from _parts(part)


def has_own(encoding: Encoding) -> bool:
    """Returns whether every parameter of the encoding belongs to one layer."""
    return encoding.per_layer and not encoding.over_shared


def _known(window: Window) -> Window:
    """Returns a window as attention takes it; it must not be traced."""
    check_window(window)
    return window if isinstance(window, Chunks | None) else count_of("window", window)
