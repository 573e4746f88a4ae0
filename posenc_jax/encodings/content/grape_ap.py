r"""GRAPE-AP lowers a logit by gates that the query and each token after the key set together.

https://arxiv.org/abs/2512.07805 (the first version of the authors' code)

$$
z_{mn} = \frac{q_m \cdot k_n}{\sqrt d} +
\sum_{l=n+1}^{m} a_h \ln \sigma\Big(\frac{p_m \cdot R(l)\, \hat p_l}{P}\Big)
$$

The slopes a are ALiBi's. p is a projection of the layer's input to P channels, p with a hat is p
scaled to a mean square of 1, and R(l) rotates every pair of channels by l radians. Overrides
``observe`` (p, and p scaled and rotated) and ``score``.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from posenc_jax.checks import check_multiple, count_of
from posenc_jax.encoding import Encoding
from posenc_jax.encodings.bias.alibi import alibi_slopes
from posenc_jax.encodings.content.cope import sums_up_to_queries
from posenc_jax.encodings.lib.angles import rotated, tables_of_text
from posenc_jax.encodings.lib.initial_values import normal
from posenc_jax.encodings.lib.sequence import project
from posenc_jax.pairs import Pairs
from posenc_jax.positions import one_axis
from posenc_jax.tokens import Tokens


class GrapeAP(Encoding):
    """Lowers logits by gates that depend on the query and on each token after the key.

    In a gate's product only the token's p is rotated and the query's is not, so a gate depends on
    the token's position and not on a distance: the positions of each document must start at 0. In
    the authors' code p may also be the queries, keys or values themselves.

    Args:
      width: P, the number of channels of p in each head, even; 8 in the published runs.
      rngs: source of the initial values, N(0, 0.02).
    """

    per_layer = True
    whole_rows = True

    def __init__(self, *, num_heads: int, model_dim: int, rngs: nnx.Rngs, width: int = 8):
        check_multiple(2, width=count_of("width", width))  # channels rotate in pairs
        self.num_heads = num_heads
        self.width = width
        self.kernel = normal(rngs, model_dim, num_heads * width)

    def observe(self, x_BTD, tokens: Tokens, state=None):
        """Makes p and the rotated p', both float32 ``[B, T, H, P]``."""
        p_BTN = project(x_BTD, self.kernel[...])
        p_BTHP = p_BTN.reshape(*p_BTN.shape[:2], self.num_heads, self.width)
        squares = (p_BTHP**2).mean(-1, keepdims=True)
        scaled = p_BTHP * jax.lax.rsqrt(squares + np.finfo(np.float32).eps)
        cos, sin = tables_of_text(one_axis(tokens.positions), np.ones(1))
        a, b = jnp.split(scaled, 2, axis=-1)
        made = p_BTHP, jnp.concatenate(rotated(a, b, cos, -sin), axis=-1)
        return made, ()  # no token looks at another

    def kept(self, made):
        return None, made[1]

    def score(self, logits_BHTS, pairs: Pairs):
        p_HBTP, rotated_HBSP = (
            pairs.of_heads(jnp.moveaxis(x_BTHP, 2, 0))
            for x_BTHP in (pairs.q_tokens.made[0], pairs.k_tokens.made[1])
        )
        products_BHTS = jnp.einsum("hbtp,hbsp->bhts", p_HBTP, rotated_HBSP) / self.width
        slopes_1H11 = pairs.per_head(jnp.asarray(alibi_slopes(self.num_heads), jnp.float32))
        gates = slopes_1H11 * jax.nn.log_sigmoid(products_BHTS)
        sums, of_keys = sums_up_to_queries(gates, pairs)
        return logits_BHTS + (sums - of_keys)
