"""Defines the base class of schemes that wrap another scheme."""

import dataclasses
from typing import Any

from posenc_jax.checks import check_encoding
from posenc_jax.encoding import Encoding
from posenc_jax.pairs import Pairs, Side
from posenc_jax.tokens import Tokens


class Wrapper(Encoding):
    """Passes every hook on to ``inner``; a subclass overrides the hooks that it changes.

    A subclass calls the hooks of ``inner`` by ``super()``. If it makes arrays of the tokens too, it
    overrides ``beneath`` and ``above``, and returns from ``kept`` what ``inner`` returns.

    Args:
      over: the scheme beneath, ``inner``. ``make`` also takes its name.
    """

    def __init__(self, over: Encoding | str):
        check_encoding(over, "over")
        assert isinstance(over, Encoding)
        if self.per_layer and over.stacked is not None:
            raise ValueError(
                f"{type(self).__name__} has parameters for each layer, and over= is a stack of "
                f"{over.stacked} layers already: give its name, and num_layers= to make"
            )
        self.inner = over
        self.per_layer = self.per_layer or over.per_layer
        self.whole_rows = self.whole_rows or over.whole_rows
        self.mixes_keys = self.mixes_keys or over.mixes_keys
        self.stacked = over.stacked

    @classmethod
    def sizes_beneath(cls, sizes: dict[str, int], **settings: Any) -> dict[str, int]:
        """Returns the sizes that ``make`` builds the scheme beneath with, given these keywords."""
        return sizes

    def overrides(self, hook: str) -> bool:
        own = getattr(type(self), hook) is not getattr(Wrapper, hook)
        return own or self.inner.overrides(hook)

    def beneath(self, tokens: Tokens) -> Tokens:
        """Returns the tokens with what ``inner`` has made of them."""
        return tokens

    def above(self, tokens: Tokens, inner: Any) -> Any:
        """Returns ``tokens.made`` with what ``inner`` has made of a layer's input."""
        return inner

    def moved(self, tokens: Tokens, length, key):
        return self.inner.moved(tokens, length, key)

    def prepare(self, tokens: Tokens, length) -> Any:
        return self.inner.prepare(tokens, length)

    def embed(self, x_BTD, tokens: Tokens):
        return self.inner.embed(x_BTD, self.beneath(tokens))

    def observe(self, x_BTD, tokens: Tokens, state: Any = None) -> tuple[Any, Any]:
        made, state = self.inner.observe(x_BTD, self.beneath(tokens), state)
        return self.above(tokens, made), state

    def kept(self, made: Any) -> Any:
        return self.inner.kept(made)

    def rotate(self, x_BTHC, tokens: Tokens, side: Side):
        return self.inner.rotate(x_BTHC, self.beneath(tokens), side)

    def rotate_values(self, v_BSKC, tokens: Tokens, side: Side):
        return self.inner.rotate_values(v_BSKC, self.beneath(tokens), side)

    def rotate_back(self, out_BTHC, tokens: Tokens, side: Side):
        return self.inner.rotate_back(out_BTHC, self.beneath(tokens), side)

    def score(self, logits_BHTS, pairs: Pairs):
        return self.inner.score(logits_BHTS, self._pairs_beneath(pairs))

    def mix(self, out_BTHC, weights_BHTS, pairs: Pairs):
        return self.inner.mix(out_BTHC, weights_BHTS, self._pairs_beneath(pairs))

    def aux_loss(self, key):
        return self.inner.aux_loss(key)

    def _pairs_beneath(self, pairs):
        """Returns the pairs for ``inner``; ``kept`` has converted the keys already."""
        return dataclasses.replace(pairs, q_tokens=self.beneath(pairs.q_tokens))


def innermost(encoding: Encoding) -> Encoding:
    """Returns the encoding beneath all wrappers."""
    while isinstance(encoding, Wrapper):
        encoding = encoding.inner
    return encoding
