r"""ALiBi, attention with linear biases, lowers a logit in proportion to the distance.

https://arxiv.org/abs/2108.12409

$$ z_{mn} = \frac{q_m \cdot k_n}{\sqrt d} - s_h\, |m - n| $$

The slopes s_h of the heads are a fixed geometric series. Overrides ``score``.
"""

import jax
import jax.numpy as jnp
import numpy as np

from posenc_jax.checks import count_of
from posenc_jax.encoding import Encoding
from posenc_jax.pairs import Pairs


def alibi_slopes(num_heads: int) -> np.ndarray:
    """Returns the slopes of the heads, float64 ``[num_heads]``.

    The steepest slope comes first where ``num_heads`` is a power of two. Other numbers of heads
    have the slopes of the next smaller power of two, followed by every other slope of the next
    larger one, in the order of all released code.
    """
    power = 2 ** (num_heads.bit_length() - 1)
    slopes = 2.0 ** (-8.0 * np.arange(1, power + 1) / power)
    between = 2.0 ** (-4.0 * np.arange(1, 2 * power + 1, 2) / power)
    return np.concatenate([slopes, between[: num_heads - power]])


class ALiBi(Encoding):
    """Penalises distance linearly, at a different rate for each head.

    Args:
      slope_scale: factor of every slope. Falcon adds the penalty before it divides by
        ``sqrt(head_dim)``, so its factor is ``head_dim ** -0.5``.
    """

    def __init__(self, *, num_heads: int, slope_scale: float = 1.0):
        self.num_heads = count_of("num_heads", num_heads)
        self.slope_scale = slope_scale

    def score(self, logits_BHTS, pairs):
        slopes = self.slope_scale * alibi_slopes(self.num_heads)
        slopes_1H11 = pairs.per_head(jnp.asarray(slopes, jnp.float32))
        return logits_BHTS - slopes_1H11 * self.distance(pairs)

    def distance(self, pairs: Pairs) -> jax.Array:
        """Returns how far each key is from each query, float32 ``[B, 1, T, S]``, never negative."""
        return abs(pairs.distance())
