"""Defines the base class of wrappers that mix keys and values with earlier ones."""

import abc
import dataclasses
from typing import Any, NamedTuple

import jax

from posenc_jax.encoding import Encoding
from posenc_jax.encodings.lib.sequence import earlier, places_back
from posenc_jax.encodings.lib.wrapper import Wrapper
from posenc_jax.pairs import Side
from posenc_jax.tokens import Tokens


class Made(NamedTuple):
    """Holds the arrays that the hooks make of the tokens."""

    # Where the tokens before each one lie, the same in all layers; see ``places_back``.
    back: jax.Array
    inner: Any  # what the other scheme has made
    gates: Any = None  # what keys and values are mixed by, where it depends on content


class LooksBack(Wrapper):
    """Mixes keys and values by ``mixed``, before another scheme's hooks.

    If attention is given only a part of the keys, the first keys become NaN where the keys before
    them are missing.

    Args:
      over: the encoding beneath.
      reach: how many tokens before each one are looked at.
    """

    mixes_keys = True

    def __init__(self, over: Encoding | str, reach: int):
        super().__init__(over)
        self.reach = reach

    @abc.abstractmethod
    def mixed(self, x_BSKC, tokens: Tokens, side: Side, which: int) -> jax.Array:
        """Returns keys (``which`` is 0) or values (1), mixed with earlier ones."""

    def before(self, x_BSKC, tokens: Tokens, count: int = 1) -> jax.Array:
        """Returns the key, or value, of the token ``count`` before each one in its segment."""
        return earlier(x_BSKC, tokens, tokens.made.back, count)

    def beneath(self, tokens: Tokens) -> Tokens:
        return dataclasses.replace(tokens, made=tokens.made.inner)

    def above(self, tokens: Tokens, inner) -> Made:
        return tokens.made._replace(inner=inner)

    def prepare(self, tokens: Tokens, length) -> Made:
        """Makes the places of the tokens before each one."""
        return Made(places_back(tokens, self.reach), super().prepare(tokens, length))

    def kept(self, made: Made):
        return self.inner.kept(made.inner)

    def rotate(self, x_BTHC, tokens: Tokens, side: Side):
        if not side.is_query:
            x_BTHC = self.mixed(x_BTHC, tokens, side, 0)
        return super().rotate(x_BTHC, tokens, side)

    def rotate_values(self, v_BSKC, tokens: Tokens, side: Side):
        return super().rotate_values(self.mixed(v_BSKC, tokens, side, 1), tokens, side)
