"""Defines the base class of wrappers that mix keys and values with earlier ones."""

import abc
import dataclasses
from typing import Any, NamedTuple

import jax

from posenc_jax.checks import check_tokens
from posenc_jax.encoding import Encoding, Side, Tile
from posenc_jax.encodings.lib.sequence import earlier, for_each_row, places_back
from posenc_jax.encodings.lib.wrapper import Wrapper
from posenc_jax.tokens import Tokens


class Made(NamedTuple):
    """Holds the arrays that the hooks make of the tokens."""

    # Where the tokens before each one lie, the same in all layers; see ``places_back``.
    back: jax.Array
    inner: Any  # what the other scheme has made
    gates: Any = None  # what a layer mixes keys and values by, arrays with the tokens along axis 1


class LooksBack(Wrapper):
    """Mixes keys and values by ``mixed``, before another scheme's hooks.

    If attention is given only a part of the keys, the first keys become NaN where the keys before
    them are missing.

    Args:
      over: the encoding beneath.
      reach: how many tokens before each one are looked at.
    """

    def __init__(self, over: Encoding | str, reach: int):
        super().__init__(over)
        self.reach = reach

    def gates(self, x_BTD) -> Any:
        """Returns the gates that mix keys and values, if they depend on content."""

    @abc.abstractmethod
    def mixed(self, x_BSKC, tokens: Tokens, side: Side, which: int) -> jax.Array:
        """Returns keys (``which`` is 0) or values (1), mixed with earlier ones."""

    def before(self, x_BSKC, tokens: Tokens, count: int = 1) -> jax.Array:
        """Returns the key, or value, of the token ``count`` before each one in its segment."""
        return earlier(x_BSKC, tokens, tokens.made.back, count)

    def hooks(self):
        return self.inner.hooks() | {"prepare", "observe", "rotate", "rotate_values"}

    def prepare(self, tokens: Tokens, *, length=None, key=None) -> Tokens:
        """Makes the places of the tokens before each one."""
        prepared = super().prepare(tokens, length=length, key=key)
        return prepared.having(Made(places_back(tokens, self.reach), prepared.made))

    def embed(self, x_BTD, tokens: Tokens):
        check_tokens("tokens", tokens, self)
        return super().embed(x_BTD, _beneath(tokens))

    def observe(self, x_BTD, tokens: Tokens, state=None) -> tuple[Made, None]:
        """Makes the gates; without a state, because ``rotate`` needs the keys before."""
        back = for_each_row(tokens.made.back, x_BTD)
        inner, _ = super().observe(x_BTD, _beneath(tokens))
        return Made(back, inner, self.gates(x_BTD)), None

    def of_keys(self, made: Made):
        return self.inner.of_keys(made.inner)

    def rotate(self, x_BTHC, tokens: Tokens, side: Side):
        if not side.is_query:
            x_BTHC = self.mixed(x_BTHC, tokens, side, 0)
        return super().rotate(x_BTHC, _beneath(tokens), side)

    def rotate_values(self, v_BSKC, tokens: Tokens, side: Side):
        v_BSKC = self.mixed(v_BSKC, tokens, side, 1)
        return super().rotate_values(v_BSKC, _beneath(tokens), side)

    def rotate_back(self, out_BTHC, tokens: Tokens, side: Side):
        return super().rotate_back(out_BTHC, _beneath(tokens), side)

    def score(self, logits_BHTS, tile: Tile):
        return super().score(logits_BHTS, _tile_beneath(tile))

    def mix(self, out_BTHC, weights_BHTS, tile: Tile):
        return super().mix(out_BTHC, weights_BHTS, _tile_beneath(tile))


def _beneath(tokens: Tokens) -> Tokens:
    """Returns the tokens as the other scheme has made them."""
    return tokens.having(tokens.made.inner)


def _tile_beneath(tile: Tile) -> Tile:
    """Returns the tile for the other scheme; ``of_keys`` has converted the keys already."""
    return dataclasses.replace(tile, q_tokens=_beneath(tile.q_tokens))
