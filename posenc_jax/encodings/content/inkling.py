r"""Inkling adds a bias by distance: a mixture of learned profiles, with weights set by each query.

Inkling and Inkling 2 (transformers ``inkling``, ``inkling2``; no paper)

$$
z_{mn} = \tau_m \Big(\frac{q_m \cdot k_n}{d} + (x_m W_h) \cdot P_{m-n}\Big)
\quad \text{for } 0 \le m - n < E, \qquad
\tau_m = 1 + a \ln \max\Big(\frac{m + 1}{N}, 1\Big)
$$

Keys at other distances get no bias. x is the layer's input, and P has a column for each distance
below the extent E. In layers with a window there is no tau. Overrides ``observe`` (the vectors
``x_m W_h``), ``score`` and, for tau, ``rotate``.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from posenc_jax.encoding import Encoding
from posenc_jax.encodings.lib.band import add_band
from posenc_jax.encodings.lib.initial_values import normal
from posenc_jax.encodings.lib.sequence import project
from posenc_jax.lookup import check_width
from posenc_jax.pairs import Pairs, Side
from posenc_jax.positions import one_axis
from posenc_jax.tokens import Tokens


class Inkling(Encoding):
    """Adds to each query a bias of its own over the distances below an extent.

    The heads share the profiles; each layer has its own. Beyond the extent the bias is 0 and not
    -inf, so the bias jumps there if a profile does not end near 0. Distances that are not whole
    numbers are rounded. Inkling normalises queries and keys
    (``Transformer(..., qk_norm="head")``) and attends with ``scale = 1 / head_dim``. In its layers
    with a window the extent is the window, and there is no tau. Inkling's causal convolutions over
    keys and values are ``short_conv``, which puts them after the norm and not before it.

    Args:
      rank: R, the number of profiles and the width of the vectors; 16 in Inkling.
      extent: number of distances, from 0 on, that have a bias; 1024 in Inkling's layers without a
        window.
      log_floor: N, the number of tokens from which on tau grows. None leaves tau out, as Inkling
        does by default.
      log_scale: a; 0.1 in Inkling.
      rngs: source of the initial values, N(0, 0.02).
    """

    per_layer = True

    def __init__(
        self,
        *,
        num_heads: int,
        model_dim: int,
        rngs: nnx.Rngs,
        rank: int = 16,
        extent: int = 1024,
        log_floor: int | None = None,
        log_scale: float = 0.1,
    ):
        self.num_heads = num_heads
        self.extent = extent
        self.log_floor = log_floor
        self.log_scale = log_scale

        self.kernel = normal(rngs, model_dim, num_heads * rank)
        self.profiles = normal(rngs, rank, extent)

    def observe(self, x_BTD, tokens: Tokens, state=None):
        """Makes the vectors of all heads, times tau, float32 ``[B, T, H * rank]``."""
        return self.vectors(x_BTD) * self._tau(tokens), ()  # no token looks at another

    def vectors(self, x_BTD) -> jax.Array:
        """Returns ``x W_h`` of all heads, float32 ``[B, T, H * rank]``."""
        return project(x_BTD, self.kernel[...])

    def kept(self, made):
        return None  # a bias comes from the query alone

    def rotate(self, x_BTHC, tokens: Tokens, side: Side):
        if not side.is_query or self.log_floor is None:
            return x_BTHC
        return (x_BTHC.astype(jnp.float32) * self._tau(tokens)[..., None]).astype(x_BTHC.dtype)

    def score(self, logits_BHTS, pairs: Pairs):
        vectors_BHTR, table_RE = self._factors(pairs)
        return add_band(logits_BHTS, vectors_BHTR, table_RE, pairs)

    def _factors(self, pairs):
        """Returns the queries' vectors, ``[B, H, T, R]``, and the profiles, ``[R, extent]``."""
        vectors_BTN, table_RE = pairs.q_tokens.made, self.profiles[...].astype(jnp.float32)
        vectors_BTHR = vectors_BTN.reshape(*vectors_BTN.shape[:2], self.num_heads, -1)
        vectors_HBTR = pairs.of_heads(jnp.moveaxis(vectors_BTHR, 2, 0))
        return jnp.moveaxis(vectors_HBTR, 0, 1), table_RE

    def _tau(self, tokens):
        """Returns float32 ``[B, T, 1]``, or 1."""
        if self.log_floor is None:
            return 1.0
        count_BT = jnp.maximum(one_axis(tokens.positions), 0).astype(jnp.float32) + 1
        logs_BT = jnp.log(jnp.maximum(count_BT / self.log_floor, 1))
        return (1 + self.log_scale * logs_BT)[..., None]


class Inkling2(Inkling):
    r"""Clips the lengths of queries, keys and bias vectors, instead of normalising as Inkling does.

    $$ y \gets y\, \min(1,\ t / \lVert y \rVert) $$

    The largest length t of a vector y of one head is ``clip`` or ``vector_clip``. Queries and bias
    vectors are first multiplied by a learned factor for each channel. Inkling 2 attends with
    ``scale = 1 / sqrt(head_dim)`` and a sink for each token (``Transformer(..., sinks="token")``).
    Its layers without a window convolve keys and values first, as ``dynamic_short_conv`` over this
    scheme does. Its normalisation of values, without weights, and its gate on outputs are not
    offered.

    Args:
      rank, extent, log_scale, rngs: keywords of ``Inkling``. The extent of the layers with a window
        is 1024 too.
      log_floor: N; 128000 in Inkling 2, and None in its layers with a window.
      clip: largest length of a query or key; ``sqrt(512)`` in Inkling 2.
      vector_clip: largest length of a bias vector; 8 in Inkling 2.
    """

    def __init__(
        self,
        *,
        num_heads: int,
        head_dim: int,
        model_dim: int,
        rngs: nnx.Rngs,
        rank: int = 16,
        extent: int = 1024,
        log_floor: int | None = 128_000,
        log_scale: float = 0.1,
        clip: float = math.sqrt(512),
        vector_clip: float = 8.0,
    ):
        sizes: Any = dict(num_heads=num_heads, model_dim=model_dim, rank=rank, extent=extent)
        super().__init__(**sizes, log_floor=log_floor, log_scale=log_scale, rngs=rngs)
        self.head_dim = head_dim
        self.clip = clip
        self.vector_clip = vector_clip
        self.query_scale = nnx.Param(jnp.ones((num_heads, head_dim)))
        self.vector_scale = nnx.Param(jnp.ones((num_heads, rank)))

    def vectors(self, x_BTD):
        vectors_BTN = super().vectors(x_BTD)
        vectors_BTHR = vectors_BTN.reshape(*vectors_BTN.shape[:2], self.num_heads, -1)
        scaled = vectors_BTHR * self.vector_scale[...].astype(jnp.float32)[None, None]
        return clipped(scaled, self.vector_clip).reshape(vectors_BTN.shape)

    def rotate(self, x_BTHC, tokens: Tokens, side: Side):
        check_width(x_BTHC, head_dim=self.head_dim)
        x = x_BTHC.astype(jnp.float32)
        if side.is_query:
            x = x * side.of_heads(self.query_scale[...]).astype(jnp.float32)[None, None]
        x = clipped(x, self.clip).astype(x_BTHC.dtype)
        return super().rotate(x, tokens, side)


def clipped(x: jax.Array, longest: float) -> jax.Array:
    """Scales vectors along the last axis that are longer than ``longest`` down to that length."""
    squares = (x**2).sum(-1, keepdims=True)
    # The bound is for zero vectors: the gradient of a root is infinite at 0.
    length = jnp.sqrt(jnp.maximum(squares, 1e-30))
    return x * jnp.minimum(1.0, longest / (length + 1e-6))
