r"""Adds to each key and value a short convolution by taps of its token, under another scheme.

Inkling 2 and Inkling2-loop (transformers ``inkling2``, ``inkling2_loop``; no paper)

$$
k_t \gets \frac{1}{\sqrt{2W + 1}} \Big(k_t + \sum_{j=0}^{W-1} (a_j + x_t U_j) \odot k_{t-j}\Big)
$$

Values have an a and a U of their own. x is the layer's input; a and U are trained. Each of the W
places has a number of a for each channel, and a number of ``x U`` for each kv head. Before the
first token of a sequence, or of a segment, there are zeros. The other scheme gets the new keys.
Overrides ``observe`` (the numbers ``x U``), and ``taps`` and ``mixed`` of ``short_conv``.
"""

import math

import jax.numpy as jnp
from flax import nnx

from posenc_jax.encoding import Encoding
from posenc_jax.encodings.lib.initial_values import normal
from posenc_jax.encodings.lib.sequence import project
from posenc_jax.encodings.wrappers.short_conv import ShortConv
from posenc_jax.pairs import Side
from posenc_jax.tokens import Tokens


class DynamicShortConv(ShortConv):
    """Convolves keys and values by taps of each token, and leaves the rest to another scheme.

    The equation and the initial values are read from transformers 5.24.0, and a test compares its
    module's outputs. No trained checkpoint was run. Inkling 2 convolves like this in layers without
    a window, and then clips keys, as ``inkling2`` beneath this scheme does. There its keys and its
    values are projected from different inputs, and so are their taps; here both have the one input
    of the layer. Its layers with a window have the taps of ``short_conv`` alone, and divide by
    ``sqrt(W + 1)``.

    Args:
      width: W, number of tokens that the convolution spans, 2 or more; 4 in Inkling 2.
      over: the encoding beneath; ``inkling2`` as published.
      rngs: source of the initial values of U, N(0, 0.02); a starts at 0.
    """

    def __init__(
        self,
        *,
        num_kv_heads: int,
        head_dim: int,
        model_dim: int,
        rngs: nnx.Rngs,
        width: int = 4,
        over: Encoding | str = "rope",
    ):
        super().__init__(
            num_kv_heads=num_kv_heads, head_dim=head_dim, rngs=rngs, width=width, over=over
        )
        for kernel in (self.of_keys_kernel, self.of_values_kernel):
            kernel[...] = jnp.zeros_like(kernel[...])
        self.kernel = normal(rngs, model_dim, 2 * num_kv_heads * width)

    def observe(self, x_BTD, tokens: Tokens, state=None):
        """Makes the numbers ``x U`` of keys, then of values, float32 ``[B, T, 2 K W]``."""
        made, _ = super().observe(x_BTD, tokens)
        return made._replace(gates=project(x_BTD, self.kernel[...])), None

    def taps(self, tokens: Tokens, side: Side, which: int):
        shared = super().taps(tokens, side, which)
        own_BSN = jnp.split(tokens.made.gates, 2, axis=-1)[which]
        own_BSKW = own_BSN.reshape(*own_BSN.shape[:2], -1, len(shared))
        own_KBSW = side.of_kv_heads(jnp.moveaxis(own_BSKW, 2, 0))
        own_BSKW1 = jnp.moveaxis(own_KBSW, 0, 2)[..., None]
        return [tap + own_BSKW1[:, :, :, place] for place, tap in enumerate(shared)]

    def mixed(self, x_BSKC, tokens: Tokens, side: Side, which: int):
        total = super().mixed(x_BSKC.astype(jnp.float32), tokens, side, which)
        width = 1 + self.reach
        return (total / math.sqrt(2 * width + 1)).astype(x_BSKC.dtype)
