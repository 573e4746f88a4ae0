"""A scheme around another scheme."""

from collections.abc import Mapping

from posenc_jax.encoding import Encoding
from posenc_jax.registry import MODEL_ARGUMENTS, make


class Wrapper(Encoding):
    """Does what ``inner`` does; a subclass overrides the hooks it changes."""

    def __init__(self, inner: Encoding):
        self.inner = inner
        self.per_layer = inner.per_layer
        self.shift_invariant = inner.shift_invariant
        self.whole_rows = inner.whole_rows

    def place(self, positions, key=None, length=None):
        return self.inner.place(positions, key, length)

    def embed(self, x_BTD, positions):
        return self.inner.embed(x_BTD, positions)

    def prepare(self, positions, length):
        return self.inner.prepare(positions, length)

    def read(self, x_BTD, tokens):
        return self.inner.read(x_BTD, tokens)

    def rotate(self, x_BTHC, prepared, *, is_query):
        return self.inner.rotate(x_BTHC, prepared, is_query=is_query)

    def score(self, logits_BHTS, tile):
        return self.inner.score(logits_BHTS, tile)

    def mix(self, out_BTHC, weights_BHTS, tile):
        return self.inner.mix(out_BTHC, weights_BHTS, tile)

    def aux_loss(self, key):
        return self.inner.aux_loss(key)


def wrapped(over: "str | Mapping | Encoding", **sizes) -> Encoding:
    """The encoding that ``over`` is or names: one already built; its name; or a mapping of its name
    and its own keywords (``{"name": "yarn", "factor": 4.0}``), built with ``sizes``, as ``make``
    names them.
    """
    for name in sizes:
        if name not in MODEL_ARGUMENTS:
            raise TypeError(
                f"unknown keyword {name!r}: besides its own the encoding takes what it builds "
                f"over={over!r} with, {', '.join(MODEL_ARGUMENTS)}"
            )
    if isinstance(over, Encoding):
        return over
    built = make(**({"name": over} if isinstance(over, str) else dict(over)), **sizes)
    if not isinstance(built, Encoding):
        raise ValueError(f"over={over!r} must be an encoding, not a pattern of layers")
    return built
