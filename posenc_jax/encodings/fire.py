"""FIRE, functional interpolation for relative positions.

https://arxiv.org/abs/2310.04418

``logit + MLP(psi(m - n) / (psi(max(m, |u L|)) + eps))_h`` with ``psi(x) = ln(|c x| + 1)``; m is
the query's position, the largest distance its row can hold. Overrides ``score``.
"""

import functools

import jax
import jax.numpy as jnp
from flax import nnx

from posenc_jax.attention.strip import add_bias
from posenc_jax.encoding import Encoding
from posenc_jax.gather import compares, explicit_layout


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
        reach = jnp.maximum(tile.q_positions.astype(jnp.float32), threshold)[:, :, None]
        share_BTS = self._psi(tile.distance()[:, 0]) / (self._psi(reach) + 1e-6)
        units = self.inner.kernel[...][0], self.inner.bias[...]
        outer_KH = tile.of_heads(self.outer.kernel[...].T).T
        # In a kernel nothing is kept that could be too large, and rows cannot be looped over.
        network = _network if compares() else _network_of_rows
        bias_BHTS = network(share_BTS, units, outer_KH)
        bias_BHTS = bias_BHTS + tile.of_heads(self.outer.bias[...])[None, :, None, None]
        return add_bias(logits_BHTS, bias_BHTS)

    def _psi(self, x):
        return jnp.log(jnp.abs(self.c[...] * x) + 1)


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


@jax.custom_vjp
def _network_of_rows(share_BTS, units, outer_KH):
    """``_network`` with a gradient that holds the units of one row of queries at a time.

    Measured on a CPU: thirty times as fast as the gradient of matrix products.
    """
    return _network(share_BTS, units, outer_KH)


def _network_backward(operands, d_BHTS):
    share_BTS, units, outer_KH = operands

    d_share_BTS = jnp.zeros_like(share_BTS)
    for kernel, bias, outer_H in zip(*units, outer_KH, strict=True):
        slope_BTS = sum(outer_H[h] * d_BHTS[:, h] for h in range(outer_H.size))
        is_on = kernel * share_BTS + bias > 0
        d_share_BTS = d_share_BTS + jnp.where(is_on, kernel * slope_BTS, 0)

    product = functools.partial(
        jnp.einsum,
        "kbs,bhs->kh",
        precision="highest",
        out_sharding=explicit_layout(outer_KH),
    )

    # A unit that is on is linear: all parameters' gradients are sums of d and of d * share.
    def add_row(sums, row):
        share_BS, d_BHS = row
        kernel_K11, bias_K11 = (x[:, None, None] for x in units)
        is_on_KBS = (kernel_K11 * share_BS[None] + bias_K11 > 0).astype(jnp.float32)
        both = d_BHS, d_BHS * share_BS[:, None]
        own = [product(is_on_KBS, x) for x in both]
        return jax.tree.map(jnp.add, sums, own), None

    rows = jnp.moveaxis(share_BTS, 1, 0), jnp.moveaxis(d_BHTS, 2, 0)
    (sums_KH, moments_KH), _ = jax.lax.scan(add_row, [jnp.zeros_like(outer_KH)] * 2, rows)
    d_units = (outer_KH * moments_KH).sum(1), (outer_KH * sums_KH).sum(1)
    kernel_K1, bias_K1 = (x[:, None] for x in units)
    return d_share_BTS, d_units, kernel_K1 * moments_KH + bias_K1 * sums_KH


_network_of_rows.defvjp(lambda *operands: (_network(*operands), operands), _network_backward)
