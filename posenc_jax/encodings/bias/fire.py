"""FIRE, functional interpolation for relative positions.

https://arxiv.org/abs/2310.04418

``logit + MLP(psi(m - n) / (psi(max(m, |u L|)) + eps))_h`` with ``psi(x) = ln(|c x| + 1)``; m is
the query's position, the largest distance its row can hold. Overrides ``score``.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from posenc_jax.attention.strip import add_bias
from posenc_jax.encoding import Encoding
from posenc_jax.gather import compares


class FIRE(Encoding):
    """A small trained function of distance, rescaled by how far a query can look back.

    The rescaling reads the query's position, so shifting all positions changes the bias: packed
    documents need positions that restart.

    Args:
      num_heads: query heads of one layer.
      hidden: width of the network; 32 in the paper.
      init_length: L, below which queries are rescaled alike; the paper has 512 for a training
        length of 2048.
      rngs: initial values. c starts at 0.1 and u at 1, both trained.
    """

    shift_invariant = False

    def __init__(
        self, *, num_heads: int, rngs: nnx.Rngs, hidden: int = 32, init_length: float = 512.0
    ):
        if not init_length > 0:
            raise ValueError(f"init_length={init_length!r} must be a positive number of tokens")
        self.init_length = init_length
        self.c = nnx.Param(jnp.asarray(0.1))
        self.length_multiplier = nnx.Param(jnp.asarray(1.0))
        self.inner = nnx.Linear(1, hidden, rngs=rngs)
        self.outer = nnx.Linear(hidden, num_heads, rngs=rngs)

    def score(self, logits_BHTS, tile):
        threshold = jnp.abs(self.length_multiplier[...] * self.init_length)
        reach_BT = jnp.maximum(tile.q_positions.astype(jnp.float32), threshold)
        inverse_BT = 1 / (self._psi(reach_BT) + 1e-6)
        psi_BTS = self._psi(tile.distance()[:, 0])
        if compares():  # in a kernel, which knows no branches and no product by rows
            share_BTS, network = psi_BTS * inverse_BT[:, :, None], _network
        else:
            # As a product its gradient by each row is seven times as fast on a CPU.
            share_BTS = jnp.einsum("bts,bt->bts", psi_BTS, inverse_BT)
            network = _network_of_tile
        units = self.inner.kernel[...][0], self.inner.bias[...]
        outer_KH = tile.of_heads(self.outer.kernel[...].T).T
        bias_BHTS = network(share_BTS, units, outer_KH)
        bias_BHTS = bias_BHTS + tile.of_heads(self.outer.bias[...])[None, :, None, None]
        return add_bias(logits_BHTS, bias_BHTS)

    def _psi(self, x):
        return jnp.log(jnp.abs(self.c[...]) * jnp.abs(x) + 1)


def _network(share_BTS, units, outer_KH):
    """``outer @ relu(kernel * share + bias)`` of every pair, ``[B, H, T, S]``.

    One unit after the other, in registers: the ``[T, S, K]`` outputs of all units never exist.
    """
    share_B1TS = share_BTS[:, None]
    bias_BHTS = jnp.zeros((1, outer_KH.shape[1], 1, 1))
    for kernel, bias, outer_H in zip(*units, outer_KH, strict=True):
        active = jax.nn.relu(kernel * share_B1TS + bias)
        bias_BHTS = bias_BHTS + outer_H[None, :, None, None] * active
    return bias_BHTS


def _network_of_tile(share_BTS, units, outer_KH):
    """``_network``, fast where few units bend within the tile; which do is seen at run time.

    A unit bends at one share. Where all shares of the tile lie on one side of it, it is off or adds
    a line, and the lines of all units are one. A share of 0 is left out, and has a bias of its own:
    as long as the units' biases are near the 0 they start with, they bend next to it.
    """
    kernel, bias = units
    highest = share_BTS.max()
    lowest = jnp.minimum(jnp.where(share_BTS > 0, share_BTS, jnp.inf).min(), highest)
    ends = [kernel * share + bias for share in (lowest, highest)]
    is_on = (ends[0] > 0) & (ends[1] > 0)
    is_bent = ~is_on & ((ends[0] > 0) | (ends[1] > 0))

    def sum_units(numbers_K, where_K):
        return (jnp.where(where_K, numbers_K, 0)[:, None] * outer_KH).sum(0)

    line = sum_units(kernel, is_on), sum_units(bias, is_on)
    at_0 = sum_units(jax.nn.relu(bias), ~is_bent)
    # Those that bend come first.
    order_KK = jax.nn.one_hot(jnp.argsort(~is_bent), is_bent.size)
    ordered = [jnp.matmul(order_KK, x, precision="highest") for x in (*units, outer_KH)]
    return _line_and_bent(share_BTS, line, at_0, ordered, is_bent.sum())


@jax.custom_vjp
def _line_and_bent(share_BTS, line, at_0, units, num_bent):
    """For each head, a slope and a level, or the bias at share 0; and the first of the units."""
    share_B1TS = share_BTS[:, None]
    slope_1H11, level_1H11, at_0_1H11 = (x[None, :, None, None] for x in (*line, at_0))

    def add_unit(i, bias_BHTS):
        kernel, bias, outer_H = (x[i] for x in units)
        return bias_BHTS + outer_H[None, :, None, None] * jax.nn.relu(kernel * share_B1TS + bias)

    start = jnp.where(share_B1TS == 0, at_0_1H11, slope_1H11 * share_B1TS + level_1H11)
    return jax.lax.fori_loop(0, num_bent, add_unit, start)


def _backward(operands, d_BHTS):
    share_BTS, (slope_H, _), _, units, num_bent = operands
    heads = range(slope_H.size)

    def by_share(slope_H):
        return sum(slope_H[h] * d_BHTS[:, h] for h in heads)

    def by_slope_and_level(d_BHTS):
        d_slope_H = jnp.stack([(d_BHTS[:, h] * share_BTS).sum() for h in heads])
        return d_slope_H, d_BHTS.sum((0, 2, 3))

    def add_unit(i, gradients):
        d_share_BTS, d_units = gradients
        kernel, bias, outer_H = (x[i] for x in units)
        is_on_BTS = kernel * share_BTS + bias > 0  # and is a line there
        d_share_BTS = d_share_BTS + jnp.where(is_on_BTS, by_share(kernel * outer_H), 0)
        d_slope_H, d_level_H = by_slope_and_level(jnp.where(is_on_BTS[:, None], d_BHTS, 0))
        d_unit = (
            (outer_H * d_slope_H).sum(),
            (outer_H * d_level_H).sum(),
            kernel * d_slope_H + bias * d_level_H,
        )
        return d_share_BTS, [x.at[i].set(d) for x, d in zip(d_units, d_unit, strict=True)]

    start = by_share(slope_H), [jnp.zeros_like(x) for x in units]
    d_share_BTS, d_units = jax.lax.fori_loop(0, num_bent, add_unit, start)
    d_slope_H, d_level_H = by_slope_and_level(d_BHTS)
    d_at_0_H = jax.lax.cond(
        share_BTS.min() == 0,
        lambda: jnp.where(share_BTS[:, None] == 0, d_BHTS, 0).sum((0, 2, 3)),
        lambda: jnp.zeros_like(d_level_H),
    )
    return d_share_BTS, (d_slope_H, d_level_H - d_at_0_H), d_at_0_H, d_units, None


_line_and_bent.defvjp(lambda *operands: (_line_and_bent(*operands), operands), _backward)
