r"""DeBERTa's disentangled attention adds content-to-position and position-to-content terms.

https://arxiv.org/abs/2006.03654

$$
z_{mn} = \frac{q_m \cdot k_n + q_m \cdot W_{kr} P[i] + k_n \cdot W_{qr} P[j]}{\sqrt{3 d}}
$$

P is one trained table of relative positions; i and j are its rows for the distance m - n. Overrides
``score``.
"""

import math

import jax.numpy as jnp
import numpy as np
from flax import nnx

from posenc_jax.checks import check_choice, check_multiple, count_of
from posenc_jax.encoding import Encoding
from posenc_jax.encodings.lib.initial_values import normal
from posenc_jax.lookup import lying_as_heads, pick, row_products, rows


def deberta_buckets(num_buckets: int, max_distance: int) -> np.ndarray:
    """Returns the bucket of each distance, int ``[max_distance]``.

    Up to half of the buckets hold one distance each; the others are by the logarithm of the
    distance, rounded up. Buckets are computed on the host, because an accelerator's logarithm could
    move a distance into the neighbouring bucket.
    """
    exact = num_buckets // 2
    distance = np.arange(max_distance)
    ratio = np.log(np.maximum(distance, 1) / exact) / math.log((max_distance - 1) / exact)
    far = exact + np.ceil(ratio * (exact - 1)).astype(np.int64)
    return np.where(distance <= exact, distance, far)


class DeBERTa(Encoding):
    """Adds content-to-position and position-to-content terms, each with its own projection.

    The paper uses the scheme in encoders; using it under a causal mask is our extension. Distances
    that are not whole numbers are rounded. Deviations from the released code:

    - There, all layers share one table P. Here each layer has its own, as it has its own W.
    - ``W_kr`` has no bias here (v2 has one), because ``q_m . b`` is the same for every key and
      cancels in the softmax. ``W_qr`` has one.
    - ``share_att_key`` (v2) is not offered, because queries and keys come from the model's own
      projections. To load such a checkpoint copy them into ``w_kr``, ``w_qr`` and ``b_qr``, and
      P as it is after its layer normalisation.
    - With grouped keys, ``Kr`` and ``Qr`` still have one head for each query head.

    Args:
      model_dim: width of P.
      max_distance: 512 in the released models. Distances from here on share a row with the last.
      num_buckets: None gives each distance a row of its own (v1). A number groups distances in
        that many buckets a direction (v2, which has 256).
      p2c_row: which row of P the position-to-content term reads. "released" is the row of m - n, as
        in all released code and for its checkpoints; "paper" is the row of n - m, as in the paper.
      rngs: source of the initial values, N(0, 0.02), and 0 for the bias.
    """

    per_layer = True

    def __init__(
        self,
        *,
        num_heads: int,
        head_dim: int,
        model_dim: int,
        rngs: nnx.Rngs,
        max_distance: int = 512,
        num_buckets: int | None = None,
        p2c_row: str = "released",
    ):
        exact = 0
        if num_buckets is not None:
            check_multiple(2, num_buckets=count_of("num_buckets", num_buckets))
            exact = num_buckets // 2 + 1  # distances with a bucket each
        count_of("max_distance", max_distance, exact + 1)
        check_choice(("released", "paper"), p2c_row=p2c_row)
        self.max_distance = max_distance
        self.num_buckets = num_buckets
        self.p2c_row = p2c_row

        self.table = normal(rngs, 2 * (num_buckets or max_distance), model_dim)
        self.w_kr = normal(rngs, num_heads, head_dim, model_dim)
        self.w_qr = normal(rngs, num_heads, head_dim, model_dim)
        self.b_qr = nnx.Param(jnp.zeros((num_heads, head_dim)))

    def row(self, distance):
        """Returns int32 rows of P for float32 distances, query position minus key position.

        Keys before the query have one row less than keys ahead of it.
        """
        distance = jnp.round(distance).astype(jnp.int32)
        half = self.table.shape[0] // 2
        if self.num_buckets is not None:
            # Clipped as in the authors' code; in Hugging Face's, keys further ahead than
            # max_distance fall into row 0, which no other key reads.
            size = jnp.minimum(abs(distance), self.max_distance - 1)
            buckets = jnp.asarray(deberta_buckets(self.num_buckets, self.max_distance), jnp.int32)
            distance = jnp.sign(distance) * rows(buckets, size)
        return jnp.clip(distance + half, 0, 2 * half - 1)

    def score(self, logits_BHTS, pairs):
        table_RD = self.table[...].astype(jnp.float32)

        distance = pairs.distance()
        c2p_row = self.row(distance)
        p2c_row = c2p_row if self.p2c_row == "released" else self.row(-distance)
        c2p = pick(self._c2p(pairs, table_RD), c2p_row)
        p2c = pick(self._p2c(pairs, table_RD), p2c_row.swapaxes(2, 3)).swapaxes(2, 3)
        return (logits_BHTS + pairs.scale * (c2p + p2c)) / math.sqrt(3)

    def _c2p(self, pairs, table_RD):
        """Multiplies every query with every row, float32 ``[B, H, T, R]``."""
        w_kr = pairs.of_heads(self.w_kr[...])
        return row_products(pairs.q, jnp.einsum("rd,hcd->hrc", table_RD, w_kr))

    def _p2c(self, pairs, table_RD):
        """Multiplies every key with every row, float32 ``[B, H, S, R]``."""
        (B, S, K, _), H = pairs.k.shape, pairs.q.shape[2]
        w_qr, b_qr = (pairs.of_heads(p[...]) for p in (self.w_qr, self.b_qr))
        queries_HRC = jnp.einsum("rd,hcd->hrc", table_RD, w_qr) + b_qr[:, None]
        queries_KGRC = queries_HRC.reshape(K, H // K, *queries_HRC.shape[1:])
        k_BSKC, queries_KGRC = pairs.k.astype(jnp.float32), lying_as_heads(queries_KGRC, pairs.k)
        return jnp.einsum("bskc,kgrc->bkgsr", k_BSKC, queries_KGRC).reshape(B, H, S, -1)
