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

from posenc_jax.checks import check_divides, count_of
from posenc_jax.encoding import Encoding
from posenc_jax.encodings.content.fox import ForgetGate, decay
from posenc_jax.encodings.lib.initial_values import uniform
from posenc_jax.encodings.lib.sequence import (
    arrange,
    arrange_keys,
    convolved,
    for_each_row,
    project,
)
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
        gate, last_gate = self.gate(x_BTD, tokens, state["gate"]) if self.gate else (None, None)
        w_BTKC = jax.nn.silu(w_BTN).reshape(*w_BTN.shape[:2], self.num_kv_heads, -1)
        beta = project(x_BTD, self.beta_kernel[...]) + self.beta_bias[...][None, None]
        made = {
            "w": w_BTKC * jax.lax.rsqrt((w_BTKC**2).sum(-1, keepdims=True) + 1e-6),
            "beta": 2 * jax.nn.sigmoid(beta),
            "gate": gate,
        }
        return made, {"steps": steps, "gate": last_gate}

    def score(self, logits_BHTS, pairs):
        q, k = (x.astype(jnp.float32) for x in (pairs.q, pairs.k))
        B, S, K, C = k.shape
        kv_heads = pairs.side.num_heads * K // q.shape[2]  # of the whole model
        if kv_heads % self.num_kv_heads:
            raise ValueError(
                f"the encoding was made for num_kv_heads={self.num_kv_heads}, but attention has "
                f"num_kv_heads={kv_heads}: pass that to make"
            )
        k = jnp.broadcast_to(k[:, :, :, None], (B, S, K, q.shape[2] // K, C)).reshape(B, S, -1, C)

        made = pairs.k_tokens.made
        check_width(q, head_dim=made["w"].shape[-1])
        k_index = for_each_row(pairs.k_tokens.order(), made["beta"])
        group = self.num_heads // self.num_kv_heads
        rows = pairs.of_heads(jnp.arange(self.num_heads) // group)
        w = made["w"][:, :, rows]
        w = w + jnp.zeros_like(q[:, :1, :, :1])  # sharded as the queries' heads are
        segment_ids = pairs.k_tokens.segment_ids
        if segment_ids is not None:
            segment_ids = for_each_row(segment_ids, made["beta"])
        keys = _Tokens(k, k_index, segment_ids, w, made["beta"][:, :, rows])
        queries = _Tokens(q, pairs.q_tokens.order(), pairs.q_tokens.segment_ids)
        if pairs.k_tokens.index is None:
            change = _change(queries, keys)
        else:
            # The system is triangular in the order in which tokens were written.
            order_BS = jnp.argsort(k_index, axis=1)
            keys = jax.tree.map(lambda x: arrange(x, order_BS), keys)
            change = arrange_keys(_change(queries, keys), jnp.argsort(order_BS, axis=1))
        logits_BHTS = logits_BHTS - pairs.scale * change
        if self.gate is None:
            return logits_BHTS
        forgotten = decay(pairs.q_tokens.made["gate"], made["gate"], pairs)
        return logits_BHTS + pairs.scale * forgotten


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
    size = min(BLOCK, S)
    blocks = -(-S // size)

    def cut(x):
        # Padding in front of the first token has w = 0 and changes nothing.
        x = jnp.pad(x, ((0, 0), (blocks * size - S, 0), *[(0, 0)] * (x.ndim - 2)))
        return jnp.moveaxis(x.reshape(x.shape[0], blocks, size, *x.shape[2:]), 1, 0)

    q_BHTC = queries.x_BTHC.swapaxes(1, 2)
    # The system is solved once for all queries where they are many, and else for each of them.
    are_many = q_BHTC.shape[2] >= size + q_BHTC.shape[3]

    def solved_block(keys):
        block = _block(keys)
        return block._replace(effects=_solved(block.lower, block.effects, left=True), lower=None)

    def add_block(taken_BHTC, block):
        block = block if are_many else _block(block)
        visible = queries.index[:, None, :, None] >= block.index[:, None, None, :]
        if block.segment_ids is not None:
            visible &= queries.segment_ids[:, None, :, None] == block.segment_ids[:, None, None, :]
        removed = jnp.where(visible, _einsum("bhtc,bhsc->bhts", q_BHTC - taken_BHTC, block.w), 0)
        if not are_many:
            removed = _solved(block.lower, removed, left=False)
        removed = _einsum("bhts,bhsn->bhtn", removed, block.effects)
        change, newly_taken_BHTC = jnp.split(removed, [size], axis=-1)
        change += _einsum("bhtc,bhnc->bhtn", taken_BHTC, block.keys)
        return taken_BHTC + newly_taken_BHTC, change

    keys = jax.tree.map(cut, keys)
    keys = jax.vmap(solved_block)(keys) if are_many else keys
    _, change = jax.lax.scan(add_block, jnp.zeros_like(q_BHTC), keys, reverse=True)
    change = jnp.moveaxis(change, 0, 3)
    return change.reshape(*change.shape[:3], -1)[..., blocks * size - S :]


class _Block(NamedTuple):
    """Holds s keys in the order they were written in, and what their tokens do to a query."""

    keys: Any  # [B, H, s, C]
    w: Any  # [B, H, s, C]
    lower: Any  # [B, H, s, s], strictly lower triangular
    effects: Any  # [B, H, s, s + C]: of each token on the product with each key, and on the query
    index: Any
    segment_ids: Any


def _block(keys):
    """Returns the ``_Block`` of some consecutive keys."""
    x_BHSC, w_BHSC = keys.x_BTHC.swapaxes(1, 2), keys.w.swapaxes(1, 2)
    earlier = keys.index[:, None, :, None] > keys.index[:, None, None, :]
    overlaps = earlier
    if keys.segment_ids is not None:
        overlaps &= keys.segment_ids[:, None, :, None] == keys.segment_ids[:, None, None, :]
    beta_w_BHSC = keys.beta.swapaxes(1, 2)[..., None] * w_BHSC
    lower = jnp.where(overlaps, _einsum("bhsc,bhtc->bhst", beta_w_BHSC, w_BHSC), 0)
    on_products = jnp.where(earlier, _einsum("bhsc,bhnc->bhsn", beta_w_BHSC, x_BHSC), 0)
    effects = jnp.concatenate([on_products, beta_w_BHSC], axis=-1)
    return _Block(x_BHSC, w_BHSC, lower, effects, keys.index, keys.segment_ids)


def _solved(lower, x, *, left):
    """Returns ``(I + lower)^-1 x`` or ``x (I + lower)^-1``; ``lower`` is strictly lower triangular.

    Both solvers are given, because JAX's own derivative of a triangular solve fails to infer its
    sharding on a mesh with Explicit axes.
    """
    product = "bhst,bhtn->bhsn" if left else "bhns,bhst->bhnt"
    solve = functools.partial(
        jax.lax.linalg.triangular_solve, lower, left_side=left, lower=True, unit_diagonal=True
    )
    return jax.lax.custom_linear_solve(
        lambda x: x + _einsum(product, *((lower, x) if left else (x, lower))),
        x,
        lambda _, x: solve(x, transpose_a=False),
        lambda _, x: solve(x, transpose_a=True),
    )
