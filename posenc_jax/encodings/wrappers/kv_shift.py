r"""Mixes each key and value with the key and value of the token before, under another scheme.

https://arxiv.org/abs/2503.02130 (FoX Pro), https://arxiv.org/abs/2512.07805 (GRAPE)

$$
k_t \gets a_t\, k_{t-1} + (1 - a_t)\, k_t, \quad
v_t \gets c_t\, v_{t-1} + (1 - c_t)\, v_t, \qquad
a_t = \sigma(w_a \cdot x_t), \quad c_t = \sigma(w_c \cdot x_t)
$$

Each kv head has the two gates a and c, of the layer's input x. The first token of a sequence, or of
a segment, has zeros before it. The other scheme gets the mixed keys. Overrides ``observe`` (the
gates), ``rotate`` and ``rotate_values``.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from posenc_jax.encoding import Encoding, Side, Tile
from posenc_jax.encodings.gated.sequence import by_segment, for_each_row, project
from posenc_jax.encodings.wrappers.wrapper import Wrapper
from posenc_jax.lookup import pick
from posenc_jax.tokens import Tokens


class Gates(NamedTuple):
    """Holds what ``observe`` makes of a layer's input.

    Attributes:
      of_keys, of_values: the gates, float32 ``[B, T, K]``.
      back: int32 ``[B, T]``, how many places before each token lies the one that was written just
        before it in the same segment; 0 where there is none.
      inner: what the other scheme has made.
    """

    of_keys: jax.Array
    of_values: jax.Array
    back: jax.Array
    inner: Any


class KVShift(Wrapper):
    """Mixes keys and values with those of the token before, and leaves the rest to another scheme.

    The authors normalise keys after the shift. Here the shift comes after all that a model does to
    its keys before attention, normalisation included.

    If attention is given only a part of the keys, the first one becomes NaN where the key before it
    is missing.

    Args:
      num_kv_heads: number of kv heads in one layer.
      model_dim: width of the residual stream.
      over: the encoding beneath; RoPE, ALiBi, FoX and GRAPE as published.
      rngs: source of the initial values: w is N(0, 0.25 / model_dim), as in GRAPE.
    """

    per_layer = True

    def __init__(
        self,
        *,
        num_kv_heads: int,
        model_dim: int,
        rngs: nnx.Rngs,
        over: Encoding | str = "rope",
    ):
        super().__init__(over)
        draw = jax.random.normal(rngs.params(), (model_dim, 2 * num_kv_heads))
        self.kernel = nnx.Param(0.5 * model_dim**-0.5 * draw)

    def hooks(self):
        return self.inner.hooks() | {"observe", "rotate", "rotate_values"}

    def observe(self, x_BTD, tokens: Tokens, state=None) -> tuple[Gates, None]:
        """Makes the gates; without a state, because ``rotate`` needs the key before."""
        del state
        gates = jax.nn.sigmoid(project(x_BTD, self.kernel[...]))
        number = for_each_row(jnp.arange(tokens.count, dtype=jnp.int32)[None], gates)
        before = by_segment(_number_before, number, tokens)
        back = jnp.where(before < 0, 0, number - before)
        of_keys, of_values = jnp.split(gates, 2, axis=-1)
        inner, _ = super().observe(x_BTD, tokens)
        return Gates(of_keys, of_values, back, inner), None

    def of_keys(self, made: Gates):
        return self.inner.of_keys(made.inner)

    def rotate(self, x_BTHC, tokens: Tokens, side: Side):
        if not side.is_query:
            x_BTHC = _mixed(x_BTHC, tokens.made.of_keys, tokens, side)
        return super().rotate(x_BTHC, _beneath(tokens), side)

    def rotate_values(self, v_BSKC, tokens: Tokens, side: Side):
        v_BSKC = _mixed(v_BSKC, tokens.made.of_values, tokens, side)
        return super().rotate_values(v_BSKC, _beneath(tokens), side)

    def rotate_back(self, out_BTHC, tokens: Tokens, side: Side):
        return super().rotate_back(out_BTHC, _beneath(tokens), side)

    def score(self, logits_BHTS, tile: Tile):
        return super().score(logits_BHTS, _tile_beneath(tile))

    def mix(self, out_BTHC, weights_BHTS, tile: Tile):
        return super().mix(out_BTHC, weights_BHTS, _tile_beneath(tile))


def _mixed(x_BSKC, gates_BSK, tokens, side):
    """Returns keys, or values, mixed with those before them."""
    gates_KBS = side.of_kv_heads(gates_BSK.transpose(2, 0, 1))
    gates_BSK1 = gates_KBS.transpose(1, 2, 0)[..., None]
    in_order = tokens.index is None and tokens.segment_ids is None
    before_BSKC = _one_back(x_BSKC) if in_order else _places_back(x_BSKC, tokens.made.back)
    return (gates_BSK1 * before_BSKC + (1 - gates_BSK1) * x_BSKC).astype(x_BSKC.dtype)


def _one_back(x_BSKC):
    return jnp.pad(x_BSKC[:, :-1], ((0, 0), (1, 0), (0, 0), (0, 0)))


def _places_back(x_BSKC, back_BS):
    """Returns the entry ``back`` places before each token: 0 for none, NaN if it is not given."""
    number = jnp.arange(x_BSKC.shape[1], dtype=jnp.int32)[None] - back_BS
    is_given = (number >= 0) & (number < x_BSKC.shape[1])
    index = jnp.clip(number, 0, x_BSKC.shape[1] - 1)
    before = pick(x_BSKC.transpose(0, 2, 3, 1), index[:, None, None]).transpose(0, 3, 1, 2)
    before = jnp.where(is_given[..., None, None], before, jnp.nan)
    return jnp.where(back_BS[..., None, None] == 0, 0, before)


def _number_before(number_BT, segment_ids):
    """Returns the index of the token before in the same segment, or -1."""
    before = jnp.pad(number_BT[:, :-1], ((0, 0), (1, 0)), constant_values=-1)
    if segment_ids is None:
        return before
    starts = segment_ids[:, 1:] != segment_ids[:, :-1]
    return jnp.where(jnp.pad(starts, ((0, 0), (1, 0))), -1, before)


def _beneath(tokens: Tokens) -> Tokens:
    """Returns the tokens with what the other scheme has prepared."""
    return tokens.having(tokens.made.inner)


def _tile_beneath(tile: Tile) -> Tile:
    """Returns the tile for the other scheme; ``of_keys`` has done it for the keys already."""
    return dataclasses.replace(tile, q_tokens=_beneath(tile.q_tokens))
