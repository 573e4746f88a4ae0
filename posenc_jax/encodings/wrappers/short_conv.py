r"""Adds to each key and value a short convolution of earlier ones, under another scheme.

Inkling (transformers ``inkling``; no paper)

$$
k_t \gets k_t + \sum_{j=0}^{W-1} a_j \odot k_{t-j}, \qquad
v_t \gets v_t + \sum_{j=0}^{W-1} c_j \odot v_{t-j}
$$

a and c are trained, one number for each channel and each of the W places. Before the first token of
a sequence, or of a segment, there are zeros. The other scheme gets the new keys. Overrides
``prepare`` (where the tokens before lie), ``rotate`` and ``rotate_values``.
"""

import jax.numpy as jnp
from flax import nnx

from posenc_jax.checks import count_of
from posenc_jax.encoding import Encoding
from posenc_jax.encodings.lib.initial_values import normal
from posenc_jax.encodings.lib.looks_back import LooksBack
from posenc_jax.lookup import check_width
from posenc_jax.pairs import Side
from posenc_jax.tokens import Tokens


class ShortConv(LooksBack):
    """Convolves keys and values over a few tokens, and leaves the rest to another scheme.

    Inkling normalises keys after the convolution. Here the convolution comes after all that a model
    does to its keys before attention, normalisation included. Inkling's two other convolutions, of
    the outputs of attention and of the feed-forward layer, are not part of attention.

    Args:
      width: W, number of tokens that the convolution spans, 2 or more; 4 in Inkling.
      over: the encoding beneath; ``inkling`` as published.
      rngs: source of the initial values, N(0, 0.02).
    """

    per_layer = True

    def __init__(
        self,
        *,
        num_kv_heads: int,
        head_dim: int,
        rngs: nnx.Rngs,
        width: int = 4,
        over: Encoding | str = "rope",
    ):
        super().__init__(over, reach=count_of("width", width, 2) - 1)
        self.of_keys_kernel = normal(rngs, num_kv_heads, width, head_dim)
        self.of_values_kernel = normal(rngs, num_kv_heads, width, head_dim)

    def taps(self, tokens: Tokens, side: Side, which: int):
        """Returns a for keys, or c for values: W float32 arrays, each over ``[B, S, K, C]``."""
        kernel_KWC = (self.of_keys_kernel, self.of_values_kernel)[which][...]
        kernel_KWC = side.of_kv_heads(kernel_KWC).astype(jnp.float32)
        return [kernel_KWC[None, None, :, place] for place in range(kernel_KWC.shape[1])]

    def mixed(self, x_BSKC, tokens: Tokens, side: Side, which: int):
        check_width(x_BSKC, head_dim=self.of_keys_kernel.shape[-1])
        tap, *earlier = self.taps(tokens, side, which)
        x = x_BSKC.astype(jnp.float32)
        total = x * (1 + tap)
        for count, tap in enumerate(earlier, start=1):
            total = total + self.before(x, tokens, count) * tap
        return total.astype(x_BSKC.dtype)
