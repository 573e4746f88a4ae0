r"""Stick-breaking attention gives each key a share of what the keys after it have left.

https://arxiv.org/abs/2410.17980

$$
a_{mn} = \sigma(z_{mn}) \prod_{n < t < m} \big(1 - \sigma(z_{mt})\big) \quad \text{for } n < m,
\qquad a_{mm} = \prod_{t < m} \big(1 - \sigma(z_{mt})\big)
$$

z are the logits and a the weights of attention, which add up to 1: the query's own value gets the
share that no other key takes. The new logits are the logarithms of these weights, which softmax
returns unchanged. Overrides ``score``.
"""

import jax
import jax.numpy as jnp

from posenc_jax.encoding import Encoding
from posenc_jax.encodings.content.cope import sums_up_to_queries
from posenc_jax.pairs import Pairs


class StickBreaking(Encoding):
    """Lets each query break off weight from the nearest key backwards; positions are not read.

    Attention must be causal; keys come in the order of their ``index``. The product of a query and
    its own key is not used. The paper's equation does not use the remainder, the share that no key
    takes; the authors' model adds the query's own value times the remainder by default
    (``sb_remainder``), and so does this class. A window or a mask hides weights, and the others are
    scaled to a sum of 1.
    """

    whole_rows = True

    def score(self, logits_BHTS, pairs: Pairs):
        if pairs.causal is False:
            raise ValueError(
                "causal=False lets queries see later keys, and stick-breaking gives weights to "
                "earlier ones alone: pass causal=True, or take another scheme"
            )
        q_order, k_order = pairs.q_tokens.order(), pairs.k_tokens.order()
        is_self = q_order[:, None, :, None] == k_order[:, None, None, :]
        left = jnp.where(is_self, 0.0, jax.nn.log_sigmoid(-logits_BHTS))
        sums_BHTS, left = sums_up_to_queries(left, pairs)
        # The sum has the key's own log(1 - sigmoid(z)), and z more than that is log(sigmoid(z)).
        return jnp.where(is_self, left.sum(-1, keepdims=True), logits_BHTS + sums_BHTS)
