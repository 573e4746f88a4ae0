"""T5 relative position bias.

https://arxiv.org/abs/1910.10683

``logit + table[bucket(m - n), h]``: one bucket a distance up to half the buckets, then buckets
that grow with the logarithm of the distance, and one for all beyond. Overrides ``score``.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from posenc_jax.attention.strip import add_bias, bias_by_distance
from posenc_jax.encoding import Encoding
from posenc_jax.gather import near_or_far, rows


def t5_bucket_starts(num_buckets: int, max_distance: int) -> np.ndarray:
    """int ``[num_buckets]``: the smallest distance in each bucket of one direction.

    Found on the host by walking the distances, so that no accelerator's logarithm can move a
    distance into the bucket next door.
    """
    exact = num_buckets // 2
    distance = np.arange(max_distance + 1)
    # float32 and truncation, as T5 has it: whether 16 * 8^(3/16) is 23.99 or 24 decides a bucket.
    ratio = np.log(np.maximum(distance, 1).astype(np.float32) / exact) / np.log(
        max_distance / exact
    )
    far = exact + (ratio * (num_buckets - exact)).astype(np.float32).astype(np.int64)
    bucket = np.where(distance < exact, distance, np.minimum(far, num_buckets - 1))
    return np.searchsorted(bucket, np.arange(num_buckets))


class T5(Encoding):
    """A trained bias for each head and bucket of distances, one table for the whole model.

    Args:
      num_heads: query heads of one layer.
      model_dim: sets the initial scale, N(0, 1 / sqrt(model_dim)).
      num_buckets: 32 in T5.
      max_distance: distances from here on share the last bucket; 128 in T5.
      bidirectional: give half the buckets to keys ahead of the query. Otherwise they all count
        as distance 0.
      table_scale: the bias is this times the table. GPT-NeoX and x-transformers have
        ``sqrt(head_dim)``, with which Adam moves the bias that much faster: in a few hundred steps
        it cannot otherwise grow to where it matters.
      rngs: initial values.

    T5 itself has no ``1 / sqrt(head_dim)``; here the bias is added to the scaled logits, the same
    functions from another initial scale. For a T5 checkpoint pass ``scale=1.0`` to ``attend``.
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
        directions = 2 if bidirectional else 1
        if num_buckets % (2 * directions) or num_buckets < 2 * directions:
            raise ValueError(
                f"num_buckets={num_buckets} must be a positive multiple of {2 * directions}"
            )
        if max_distance <= num_buckets // directions // 2:
            raise ValueError(
                f"max_distance={max_distance} must exceed the {num_buckets // directions // 2} "
                "distances that have a bucket each"
            )
        self.max_distance = max_distance
        self.bidirectional = bidirectional
        self.table_scale = table_scale
        self.table = nnx.Param(
            jax.random.normal(rngs.params(), (num_buckets, num_heads)) * model_dim**-0.5
        )

    def bucket(self, distance):
        """int32 bucket numbers of float32 distances, query position minus key position."""
        num_buckets = self.table.shape[0]
        if not self.bidirectional:
            starts = t5_bucket_starts(num_buckets, self.max_distance)
            return _last_start_reached(starts, distance)
        starts = t5_bucket_starts(num_buckets // 2, self.max_distance)
        ahead = jnp.where(distance < 0, num_buckets // 2, 0)
        return ahead + _last_start_reached(starts, abs(distance))

    def score(self, logits_BHTS, tile):
        def bias(table_HR, distance_N):
            bucket_N = self.bucket(distance_N)
            return jax.vmap(lambda table_R: rows(table_R, bucket_N))(table_HR)

        table_HR = self.table_scale * tile.of_heads(self.table[...].astype(jnp.float32).T)

        def near(logits_BHTS):
            return add_bias(logits_BHTS, bias_by_distance(bias, table_HR, tile))

        def far(logits_BHTS):
            last_H1 = bias(table_HR, jnp.array([self.max_distance], jnp.float32))
            return logits_BHTS + last_H1[None, :, :, None]

        return near_or_far(tile, self.max_distance, near, far, logits_BHTS)


def _last_start_reached(starts, distance):
    return sum((distance >= start).astype(jnp.int32) for start in starts[1:].tolist())
