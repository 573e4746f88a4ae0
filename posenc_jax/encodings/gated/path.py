r"""PaTH encodes positions by accumulated Householder transformations.

https://arxiv.org/abs/2505.16381

$$
z_{mn} = \frac{1}{\sqrt d}\, q_m^\top
\Big(\prod_{t=m}^{n+1} (I - \beta_t\, w_t w_t^\top)\Big) k_n
$$

Each token t between a key and a query reflects or shrinks the key along the token's direction w.
All logits at once are, in the parallel (UT) form,

    logits = q k^T - tril(q w^T) T stril(w k^T),  T = (I + stril(diag(beta) w w^T))^-1 diag(beta)

``tril`` keeps t <= m and ``stril`` keeps n < t, so a block of rows needs only the keys that its
queries see. Overrides ``observe`` (w, beta and gates) and ``score``.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from posenc_jax.encoding import Encoding
from posenc_jax.encodings.gated.fox import ForgetGate, decay
from posenc_jax.encodings.gated.sequence import (
    arrange,
    arrange_keys,
    convolved,
    for_each_row,
    project,
)
from posenc_jax.encodings.initial_values import uniform
from posenc_jax.fields import check_divides, count_of
from posenc_jax.lookup import check_width

BLOCK = 64  # keys of one triangular system

_einsum = functools.partial(jnp.einsum, precision="highest", preferred_element_type=jnp.float32)


class PaTH(Encoding):
    """Transforms each key by a Householder matrix for every token between it and the query.

    Positions are not read.

    ``w`` comes from the layer's input through a low-rank map, a causal convolution and SiLU, and
    is scaled to length 1; ``beta = 2 sigmoid(...)`` is within (0, 2). Each kv head has its own w
    and beta. Everything is computed in float32, with one triangular system for each block of keys.

    Args:
      num_heads: number of query heads in one layer.
      num_kv_heads: number of kv heads in one layer.
      head_dim: number of channels in one head.
      model_dim: width of the residual stream.
      rank: rank of the map to w; 32 in the paper. None means a full matrix, which the authors' code
        uses wherever query heads share kv heads.
      width: number of tokens that the convolution spans; 3 in the paper. 1 only scales channels.
      forget_gate: whether to add FoX's gates, which makes PaTH-FoX. The sum of the gates is
        multiplied by ``1 / sqrt(d)``, as the product of q and k is: the authors' code does so, and
        FoX does not.
      rngs: source of the initial values, uniform as in PyTorch's linear and convolution layers; the
        gates' bias starts as FoX's does.
    """

    per_layer = True
    whole_rows = True

    def __init__(
        self,
        *,
        num_heads: int,
        num_kv_heads: int,
        head_dim: int,
        model_dim: int,
        rngs: nnx.Rngs,
        rank: int | None = 32,
        width: int = 3,
        forget_gate: bool = False,
    ):
        check_divides(num_kv_heads=num_kv_heads, num_heads=num_heads)
        count_of("width", width)
        self.num_heads = num_heads
        self.num_kv_heads = num_kv_heads
        channels = num_kv_heads * head_dim
        inner = model_dim if rank is None else count_of("rank", rank)
        if rank is None:
            self.down_kernel = None
        else:
            self.down_kernel = uniform(rngs, model_dim, rank, fan_in=model_dim)
        self.up_kernel = uniform(rngs, inner, channels, fan_in=inner)
        self.convolution = uniform(rngs, width, channels, fan_in=width)
        self.beta_kernel = uniform(rngs, model_dim, num_kv_heads, fan_in=model_dim)
        self.beta_bias = nnx.Param(jnp.zeros(num_kv_heads))
        self.gate = ForgetGate(num_heads, model_dim, 5.0, rngs) if forget_gate else None

    def observe(self, x_BTD, tokens, state=None):
        """Makes float32 w ``[B, T, K, C]``, beta ``[B, T, K]``, and the gates' sums, if any."""
        state = {"steps": None, "gate": None} if state is None else state
        inner = x_BTD if self.down_kernel is None else project(x_BTD, self.down_kernel[...])
        steps_BTN = project(inner, self.up_kernel[...])
        w_BTN, steps = convolved(steps_BTN, self.convolution[...], tokens, state["steps"])
        gate = last_gate = None
        if self.gate is not None:
            gate, last_gate = self.gate(x_BTD, tokens, state["gate"])
        w_BTKC = jax.nn.silu(w_BTN).reshape(*w_BTN.shape[:2], self.num_kv_heads, -1)
        beta = project(x_BTD, self.beta_kernel[...]) + self.beta_bias[...][None, None]
        made = {
            "w": w_BTKC * jax.lax.rsqrt((w_BTKC**2).sum(-1, keepdims=True) + 1e-6),
            "beta": 2 * jax.nn.sigmoid(beta),
            "gate": gate,
        }
        return made, {"steps": steps, "gate": last_gate}

    def score(self, logits_BHTS, tile):
        q, k = (x.astype(jnp.float32) for x in (tile.q, tile.k))
        B, S, K, C = k.shape
        k = jnp.broadcast_to(k[:, :, :, None], (B, S, K, q.shape[2] // K, C)).reshape(B, S, -1, C)

        made = tile.k_tokens.made
        check_width(q, head_dim=made["w"].shape[-1])
        k_index = for_each_row(tile.k_tokens.order(), made["beta"])
        group = self.num_heads // self.num_kv_heads
        kv_heads = tile.of_heads(jnp.arange(self.num_heads) // group)
        w = made["w"][:, :, kv_heads]
        w = w + jnp.zeros_like(q[:, :1, :, :1])  # sharded as the queries' heads are
        segment_ids = tile.k_tokens.segment_ids
        if segment_ids is not None:
            segment_ids = for_each_row(segment_ids, made["beta"])
        keys = _Tokens(k, k_index, segment_ids, w, made["beta"][:, :, kv_heads])
        queries = _Tokens(q, tile.q_tokens.order(), tile.q_tokens.segment_ids)
        if tile.k_tokens.index is None:
            change = _change(queries, keys)
        else:
            # The system is triangular in the order in which tokens were written.
            order_BS = jnp.argsort(k_index, axis=1)
            keys = jax.tree.map(lambda x: arrange(x, order_BS), keys)
            change = arrange_keys(_change(queries, keys), jnp.argsort(order_BS, axis=1))
        logits_BHTS = logits_BHTS - tile.scale * change
        if self.gate is None:
            return logits_BHTS
        forgotten = decay(tile.q_tokens.made["gate"], made["gate"], tile)
        return logits_BHTS + tile.scale * forgotten


class _Tokens(NamedTuple):
    """Holds queries, or keys in the order they were written in, tokens along axis 1."""

    x_BTHC: Any
    index: Any
    segment_ids: Any
    w: Any = None
    beta: Any = None


# Without jit, JAX would compile the loop anew at each call outside of a compiled program.
@jax.jit
def _change(queries, keys):
    """Returns by how much the transformations lower each product, ``[B, H, T, S]``.

    It goes from the last block of keys to the first and carries one vector for each query: the part
    of it that later tokens have removed. So no matrix is larger than the result.
    """
    S = keys.index.shape[1]
    block = min(BLOCK, S)
    blocks = -(-S // block)

    def cut(x):
        # Padding in front of the first token has w = 0 and changes nothing.
        x = jnp.pad(x, ((0, 0), (blocks * block - S, 0), *[(0, 0)] * (x.ndim - 2)))
        return jnp.moveaxis(x.reshape(x.shape[0], blocks, block, *x.shape[2:]), 1, 0)

    def add_block(taken_BTHC, keys):
        change, taken_BTHC = _change_of_block(queries, taken_BTHC, keys)
        return taken_BTHC, change

    _, change = jax.lax.scan(
        add_block, jnp.zeros_like(queries.x_BTHC), jax.tree.map(cut, keys), reverse=True
    )
    change = jnp.moveaxis(change, 0, 3)
    return change.reshape(*change.shape[:3], -1)[..., blocks * block - S :]


def _change_of_block(queries, taken_BTHC, keys):
    """Returns the block's columns of ``_change``, and the part of each query removed so far."""
    earlier = keys.index[:, None, :, None] > keys.index[:, None, None, :]
    of_query = queries.index[:, None, :, None] >= keys.index[:, None, None, :]
    overlaps = earlier
    if keys.segment_ids is not None:
        segment = keys.segment_ids[:, None, None, :]
        of_query &= queries.segment_ids[:, None, :, None] == segment
        overlaps &= keys.segment_ids[:, None, :, None] == segment
    beta_w = keys.beta[..., None] * keys.w
    overlap = jnp.where(overlaps, _einsum("bshc,bthc->bhst", beta_w, keys.w), 0)
    products = _einsum("bthc,bshc->bhts", queries.x_BTHC - taken_BTHC, keys.w)
    removed = _times_inverse(jnp.where(of_query, products, 0), overlap)
    taken = jnp.where(earlier, _einsum("bshc,bnhc->bhsn", beta_w, keys.x_BTHC), 0)
    change = _einsum("bthc,bnhc->bhtn", taken_BTHC, keys.x_BTHC)
    change = change + _einsum("bhts,bhsn->bhtn", removed, taken)
    return change, taken_BTHC + _einsum("bhts,bshc->bthc", removed, beta_w)


def _times_inverse(rows, lower):
    """Returns ``rows (I + lower)^-1`` for strictly lower triangular ``lower``.

    Both solvers are given, because JAX's own derivative of a triangular solve fails to infer its
    sharding on a mesh with Explicit axes.
    """
    return jax.lax.custom_linear_solve(
        lambda x: x + _einsum("bhts,bhsn->bhtn", x, lower),
        rows,
        lambda _, rows: _solve(lower, rows, transpose_a=False),
        lambda _, rows: _solve(lower, rows, transpose_a=True),
    )


_solve = functools.partial(
    jax.lax.linalg.triangular_solve, left_side=False, lower=True, unit_diagonal=True
)
