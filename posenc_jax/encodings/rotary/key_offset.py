r"""Partial key offset takes the channels of a key that do not rotate from the token before.

https://github.com/KellerJordan/modded-nanogpt (record 49, 2025; no paper)

$$
k_t \gets \big[\, R_t\, k_t^{\text{rotary}} ;\ k_{t-1}^{\text{still}} \,\big]
$$

R is RoPE's rotation. A query that looks for the content of a token by the still channels finds the
token after it, which takes two layers otherwise. The first token of a sequence, or of a segment,
has zeros. Overrides ``prepare`` (where the token before lies) and ``rotate``.
"""

import jax
import jax.numpy as jnp

from posenc_jax.checks import count_of
from posenc_jax.encodings.lib.sequence import earlier, places_back
from posenc_jax.encodings.rotary.base import Rotary
from posenc_jax.pairs import Side
from posenc_jax.tokens import Tokens


class KeyOffset(Rotary):
    """Rotates half of the channels as RoPE, and offsets the other half of each key by one token.

    A segment starts with zeros as in Marin's models. In modded-nanogpt the first token keeps its
    own channels, and the offset crosses from one document into the next. Published
    models have the offset in the layers with long windows, or without one, and RoPE in the others.

    If attention is given only a part of the keys, the first one becomes NaN where the key before it
    is missing.

    Args:
      base: keyword of ``RoPE``. The frequencies of modded-nanogpt fall from 1 to 1 / 1024, both
        included, so that for n pairs the same base is ``1024 ** (n / (n - 1))``, 1280.6 for 32.
      rotary_dim: number of channels that rotate, the first ones; by default half of ``head_dim``.
      layout: order of the channels of a pair, as in ``RoPE``.
    """

    mixes_keys = True

    def __init__(
        self,
        *,
        head_dim: int,
        base: float = 10000.0,
        rotary_dim: int | None = None,
        layout: str = "half",
    ):
        rotary_dim = head_dim // 4 * 2 if rotary_dim is None else rotary_dim
        count_of("rotary_dim", rotary_dim, 2, head_dim - 1)
        super().__init__(head_dim=head_dim, base=base, rotary_dim=rotary_dim, layout=layout)

    def prepare(self, tokens: Tokens, length):
        """Makes RoPE's cosines and sines, and where the token before each one lies."""
        return self.rope_tables(tokens.positions), places_back(tokens, reach=1)

    def rotate(self, x_BTHC: jax.Array, tokens: Tokens, side: Side) -> jax.Array:
        tables, back = tokens.made
        if not side.is_query:
            moving, still = jnp.split(x_BTHC, [self.rotary_dim], axis=-1)
            x_BTHC = jnp.concatenate([moving, earlier(still, tokens, back, 1)], axis=-1)
        return self.rotate_by(x_BTHC, *tables)
