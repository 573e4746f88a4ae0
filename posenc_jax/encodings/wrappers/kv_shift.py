r"""Mixes each key and value with the key and value of the token before, under another scheme.

https://arxiv.org/abs/2503.02130 (FoX Pro), https://arxiv.org/abs/2512.07805 (GRAPE)

$$
k_t \gets a_t\, k_{t-1} + (1 - a_t)\, k_t, \quad
v_t \gets c_t\, v_{t-1} + (1 - c_t)\, v_t, \qquad
a_t = \sigma(w_a \cdot x_t), \quad c_t = \sigma(w_c \cdot x_t)
$$

Each kv head has the two gates a and c, of the layer's input x. The first token of a sequence, or of
a segment, has zeros before it. The other scheme gets the mixed keys. Overrides ``prepare`` (where
the token before lies), ``observe`` (the gates), ``rotate`` and ``rotate_values``.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from posenc_jax.encoding import Encoding
from posenc_jax.encodings.lib.looks_back import LooksBack
from posenc_jax.encodings.lib.sequence import project
from posenc_jax.pairs import Side
from posenc_jax.tokens import Tokens


class KVShift(LooksBack):
    """Mixes keys and values with the token before's, and leaves the rest to another scheme.

    The authors normalise keys after the shift. Here the shift comes after all that a model does to
    its keys before attention, normalisation included.

    If attention is given only a part of the keys, the first one becomes NaN where the key before it
    is missing.

    Args:
      over: the encoding beneath; RoPE, ALiBi, FoX and GRAPE as published.
      rngs: source of the initial values: w is N(0, 0.5 / sqrt(model_dim)), as in GRAPE.
    """

    per_layer = True

    def __init__(
        self, *, num_kv_heads: int, model_dim: int, rngs: nnx.Rngs, over: Encoding | str = "rope"
    ):
        super().__init__(over, reach=1)
        draw = jax.random.normal(rngs.params(), (model_dim, 2 * num_kv_heads))
        self.kernel = nnx.Param(0.5 * model_dim**-0.5 * draw)

    def gates(self, x_BTD):
        """Returns the gates of keys, then the gates of values, float32 ``[B, T, 2 K]``."""
        return jax.nn.sigmoid(project(x_BTD, self.kernel[...]))

    def observe(self, x_BTD, tokens: Tokens, state=None):
        """Makes the gates."""
        made, _ = super().observe(x_BTD, tokens)
        return made._replace(gates=self.gates(x_BTD)), None

    def mixed(self, x_BSKC, tokens: Tokens, side: Side, which: int):
        gates_BSK = jnp.split(tokens.made.gates, 2, axis=-1)[which]
        gates_KBS = side.of_kv_heads(gates_BSK.transpose(2, 0, 1))
        gates_BSK1 = gates_KBS.transpose(1, 2, 0)[..., None]
        before, current = (x.astype(jnp.float32) for x in (self.before(x_BSKC, tokens), x_BSKC))
        mixed = gates_BSK1 * before + (1 - gates_BSK1) * current
        return mixed.astype(x_BSKC.dtype)
