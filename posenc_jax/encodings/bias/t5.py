r"""T5's relative position bias has one trained number for each head and bucket of distances.

https://arxiv.org/abs/1910.10683

$$ z_{mn} = \frac{q_m \cdot k_n}{\sqrt d} + B[\mathrm{bucket}(m - n), h] $$

Short distances have a bucket each, longer ones share buckets that grow with the logarithm of the
distance, and the last bucket holds all that are longer still. Overrides ``score``.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from posenc_jax.checks import check_multiple, count_of
from posenc_jax.encoding import Encoding
from posenc_jax.encodings.lib.by_distance import add_bias, bias_by_distance
from posenc_jax.encodings.lib.initial_values import checked_shape
from posenc_jax.lookup import rows


def t5_bucket_starts(num_buckets: int, max_distance: int) -> np.ndarray:
    """Returns the smallest distance in each bucket of one direction, int ``[num_buckets]``.

    They are computed on the host, because an accelerator's logarithm could move a distance into the
    neighbouring bucket.
    """
    exact = num_buckets // 2
    distance = np.arange(max_distance + 1)
    # T5 rounds to float32 and truncates: whether 16 * 8^(3/16) is 23.99 or 24 decides a bucket.
    ratio = np.log(np.maximum(distance, 1, dtype=np.float32) / exact) / np.log(max_distance / exact)
    far = exact + (ratio * (num_buckets - exact)).astype(np.float32).astype(np.int64)
    bucket = np.where(distance < exact, distance, np.minimum(far, num_buckets - 1))
    return np.searchsorted(bucket, np.arange(num_buckets))


def t5_bucket(
    distance: jax.Array, num_buckets: int, max_distance: int, bidirectional: bool
) -> jax.Array:
    """Returns the int32 bucket of each float32 distance, query position minus key position."""
    # Unrounded, a distance between -1 and 0 would read the first row of keys ahead, which no whole
    # distance reads and nothing trains.
    distance = jnp.floor(distance + 0.5)
    if not bidirectional:
        return _last_start_reached(t5_bucket_starts(num_buckets, max_distance), distance)
    starts = t5_bucket_starts(num_buckets // 2, max_distance)
    ahead = jnp.where(distance < 0, num_buckets // 2, 0)
    return ahead + _last_start_reached(starts, abs(distance))


def check_buckets(name: str, num_buckets: int, max_distance: int, bidirectional: bool) -> None:
    """Checks that distances fill so many buckets; errors call the number of buckets ``name``."""
    directions = 2 if bidirectional else 1
    check_multiple(2 * directions, **{name: count_of(name, num_buckets)})
    # Half of the buckets hold one distance each.
    count_of("max_distance", max_distance, num_buckets // directions // 2 + 1)


class T5(Encoding):
    """Adds a trained bias for each head and bucket of distances, from one table for all layers.

    T5 itself has no ``1 / sqrt(head_dim)``. Here the bias is added to the scaled logits, so the
    model can represent the same functions but starts at another scale. For a T5 checkpoint pass
    ``scale=1.0`` to ``attend``. Distances that are not whole numbers are rounded.

    Args:
      model_dim: width of the residual stream, which sets the initial scale, N(0, 1 /
        sqrt(model_dim)).
      num_buckets: number of rows of the table; 32 in T5.
      max_distance: distance from which on all share the last bucket; 128 in T5.
      bidirectional: whether half of the buckets are for keys ahead of the query, as an encoder
        needs. Otherwise all such keys count as distance 0, and attention with ``causal=False`` is
        refused.
      table_scale: factor between the table and the bias. GPT-NeoX and x-transformers have
        ``sqrt(head_dim)``, which lets Adam move the bias faster by this factor. With a factor of 1
        the bias stays too small to matter for the first few hundred steps.
      rngs: source of the initial values.
    """

    def __init__(
        self,
        *,
        num_heads: int,
        model_dim: int,
        rngs: nnx.Rngs,
        num_buckets: int = 32,
        max_distance: int = 128,
        bidirectional: bool = False,
        table_scale: float = 1.0,
    ):
        check_buckets("num_buckets", num_buckets, max_distance, bidirectional)
        self.max_distance = max_distance
        self.bidirectional = bidirectional
        self.table_scale = table_scale
        shape = checked_shape(num_buckets, num_heads)
        self.table = nnx.Param(jax.random.normal(rngs.params(), shape) * model_dim**-0.5)

    def score(self, logits_BHTS, pairs):
        if pairs.causal is False and not self.bidirectional:
            raise ValueError(
                "causal=False lets queries see later keys, and T5 with bidirectional=False gives "
                "all of those one bias: make it with bidirectional=True"
            )
        table_HR = self.table_scale * pairs.of_heads(self.table[...].astype(jnp.float32).T)

        def bias(distance_N):
            bucket_N = t5_bucket(
                distance_N, len(self.table[...]), self.max_distance, self.bidirectional
            )
            return jax.vmap(lambda table_R: rows(table_R, bucket_N))(table_HR)

        return add_bias(logits_BHTS, bias_by_distance(bias, pairs))


def _last_start_reached(starts, distance):
    return sum((distance >= start).astype(jnp.int32) for start in starts[1:].tolist())
