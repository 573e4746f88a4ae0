r"""CoPE, contextual position encoding, lets each query count positions by gates on the tokens.

https://arxiv.org/abs/2405.18719

$$
z_{mn} = \frac{q_m \cdot k_n + q_m \cdot e[p_{mn}]}{\sqrt d}, \qquad
p_{mn} = \sum_{t=n}^{m} \sigma\Big(\frac{q_m \cdot k_t}{\sqrt d}\Big)
$$

The distance of key n from query m is a gated count of the tokens from n to m. The table e is
trained, and linear between its rows. Overrides ``score``.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from posenc_jax.checks import count_of
from posenc_jax.encoding import Encoding
from posenc_jax.encodings.lib.sequence import arrange_keys
from posenc_jax.lookup import pick, row_products
from posenc_jax.pairs import Pairs


class CoPE(Encoding):
    """Adds a query-dependent bias by a gated count of tokens; the given positions are not read.

    The heads share the table; every layer has its own. Tokens are counted in the order of their
    ``index``. A key after the query, which a causal mask hides, counts as position 0.

    Args:
      num_positions: rows of the table; larger counts read the last row. 64 in the paper; the
        released code has the training length plus one by default.
      nodiv: whether to leave the table's term undivided by ``sqrt(d)``, an option of the released
        code. The other options there, gates from keys of their own or from values, are not offered.
      rngs: not used, since the table starts at 0; accepted so that layers are made alike.
    """

    per_layer = True
    whole_rows = True

    def __init__(
        self, *, head_dim: int, rngs: nnx.Rngs, num_positions: int = 64, nodiv: bool = False
    ):
        count_of("num_positions", num_positions, minimum=2)
        self.nodiv = nodiv
        self.table = nnx.Param(jnp.zeros((num_positions, head_dim)))

    def score(self, logits_BHTS, pairs):
        last = self.table.shape[0] - 1
        count_BHTS, _ = sums_up_to_queries(jax.nn.sigmoid(logits_BHTS), pairs)
        place_BHTS = jnp.minimum(count_BHTS, last)
        rows_BHTP = row_products(pairs.q, self.table[...])
        rows_BHTP = rows_BHTP if self.nodiv else pairs.scale * rows_BHTP
        whole_BHTS = jax.lax.stop_gradient(jnp.floor(place_BHTS))
        below = whole_BHTS.astype(jnp.int32)
        lower, upper = pick(rows_BHTP, below), pick(rows_BHTP, jnp.minimum(below + 1, last))
        return logits_BHTS + lower + (place_BHTS - whole_BHTS) * (upper - lower)


def sums_up_to_queries(terms_BHTS, pairs: Pairs) -> tuple[jax.Array, jax.Array]:
    """Sums the terms of the tokens from each key to the query, both included.

    The pairs must have whole rows of keys, whose tokens say in which order they were written.
    Tokens after the query, or of another segment, add 0.

    Returns:
      The sums, and the terms of the keys themselves, both ``[B, H, T, S]``.
    """
    q_tokens, k_tokens = pairs.q_tokens, pairs.k_tokens
    counted = q_tokens.order()[:, None, :, None] >= k_tokens.order()[:, None, None, :]
    q_segments, k_segments = q_tokens.segment_ids, k_tokens.segment_ids
    if q_segments is not None and k_segments is not None:
        counted = counted & (q_segments[:, None, :, None] == k_segments[:, None, None, :])
    terms_BHTS = jnp.where(counted, terms_BHTS, 0.0)
    if k_tokens.index is None:
        return jax.lax.cumsum(terms_BHTS, axis=3, reverse=True), terms_BHTS
    order_BS = jnp.argsort(k_tokens.index, axis=-1)
    sums = jax.lax.cumsum(arrange_keys(terms_BHTS, order_BS), axis=3, reverse=True)
    return arrange_keys(sums, jnp.argsort(order_BS, axis=-1)), terms_BHTS
