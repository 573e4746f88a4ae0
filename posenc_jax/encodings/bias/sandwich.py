r"""Sandwich adds the inner product of two sinusoidal position vectors to each logit.

https://arxiv.org/abs/2212.10356

$$
z_{mn} = \frac{q_m \cdot k_n}{\sqrt d} +
\frac{H}{8h} \sum_i \cos\big((m - n)\, b^{-2i/c}\big), \qquad h = 1, \dots, H
$$

By the addition theorem the sum is the inner product of the sinusoidal vectors of m and n, which
have c channels. Overrides ``prepare`` (the vectors) and ``score``.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from posenc_jax.checks import check_multiple, count_of
from posenc_jax.encoding import Encoding
from posenc_jax.encodings.absolute.sinusoidal import sinusoids
from posenc_jax.encodings.lib.by_distance import add_bias, along_diagonals, has_diagonals
from posenc_jax.encodings.rotary.frequencies.base import checked_base
from posenc_jax.positions import one_axis
from posenc_jax.tokens import Tokens


class Sandwich(Encoding):
    """Adds a bias that decays roughly with the logarithm of the distance, without parameters.

    The bias is not computed by extra channels of queries and keys, because bfloat16 models would
    round it, and every head would compute it again.

    Args:
      channels: width of the sinusoidal vectors, even; 128 in the paper's appendix E, whatever
        the width of the model.
      base: base of the sinusoids' frequencies.
    """

    def __init__(self, *, num_heads: int, channels: int = 128, base: float = 10000.0):
        check_multiple(2, channels=count_of("channels", channels))
        self.num_heads = num_heads
        self.channels = channels
        self.base = checked_base(base)

    def prepare(self, tokens: Tokens, length):
        """Makes the sinusoids of each position, float32 ``[B, T, channels]``."""
        return sinusoids(one_axis(tokens.positions), self.channels, self.base)

    def score(self, logits_BHTS, pairs):
        ratios = 8 * np.arange(1, self.num_heads + 1) / self.num_heads
        share_H = pairs.of_heads(jnp.asarray(1 / ratios, jnp.float32))
        # einsum makes the gradient fast on a CPU.
        bias_BHTS = jnp.einsum("h,bts->bhts", share_H, _products(pairs), precision="highest")
        return add_bias(logits_BHTS, bias_BHTS)


def _products(pairs):
    """Multiplies every query's vector with every key's, float32 ``[B, T, S]``.

    Products depend on the distance alone. Where positions are known to be consecutive, only those
    of the last query and of the last key are computed.
    """
    product = functools.partial(jnp.einsum, "btd,bsd->bts", precision="highest")
    q, k = pairs.q_tokens.made, pairs.k_tokens.made
    if not has_diagonals(pairs):
        return product(q, k)
    # Such positions are integers, so a gradient with respect to them would be computed in vain.
    q, k = jax.lax.stop_gradient((q, k))
    of_last_query = product(q[:, -1:], k)[:, 0]
    of_last_key = product(q[:, -2::-1], k[:, -1:])[..., 0]
    return along_diagonals(jnp.concatenate([of_last_query, of_last_key], axis=1), pairs)
