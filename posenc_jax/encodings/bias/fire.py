r"""FIRE, functional interpolation for relative positions, adds a trained function of the distance.

https://arxiv.org/abs/2310.04418

$$
z_{mn} = \frac{q_m \cdot k_n}{\sqrt d} +
\mathrm{MLP}\Big(\frac{\psi(m - n)}{\psi(\max(m, |u L|)) + \epsilon}\Big)_h, \qquad
\psi(x) = \ln(|c\, x| + 1)
$$

c and u are trained numbers. The query's position m is the largest distance in its row. Overrides
``score``.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from posenc_jax.encoding import Encoding
from posenc_jax.encodings.lib.by_distance import add_bias
from posenc_jax.encodings.lib.one_by_one import sum_one_by_one


class FIRE(Encoding):
    """Adds a small trained function of distance, rescaled by how far a query can look back.

    The rescaling reads the query's position, so shifting all positions changes the bias: packed
    documents need positions that restart.

    Args:
      hidden: width of the network; 32 in the paper.
      init_length: L, the position below which all queries are rescaled alike; the paper has 512
        for a training length of 2048.
      rngs: source of the initial values. c starts at 0.1 and u at 1, and both are trained.
    """

    def __init__(
        self, *, num_heads: int, rngs: nnx.Rngs, hidden: int = 32, init_length: float = 512.0
    ):
        self.init_length = init_length
        self.c = nnx.Param(jnp.asarray(0.1))
        self.length_multiplier = nnx.Param(jnp.asarray(1.0))
        self.inner = nnx.Linear(1, hidden, rngs=rngs)
        self.outer = nnx.Linear(hidden, num_heads, rngs=rngs)

    def score(self, logits_BHTS, pairs):
        threshold = jnp.abs(self.length_multiplier[...] * self.init_length)
        reach_BT = jnp.maximum(pairs.q_tokens.positions.astype(jnp.float32), threshold)
        inverse_BT = 1 / (self._psi(reach_BT) + 1e-6)
        psi_BTS = self._psi(pairs.distance()[:, 0])
        assert self.inner.bias is not None and self.outer.bias is not None  # made with them
        outer_UH = pairs.of_heads(self.outer.kernel[...].T).T
        units = self.inner.kernel[...][0], self.inner.bias[...], outer_UH
        # einsum makes the gradient by each row's factor seven times as fast on a CPU.
        share_BTS = jnp.einsum("bts,bt->bts", psi_BTS, inverse_BT)
        bias_HN = sum_one_by_one(_unit, units, share_BTS.reshape(-1))
        bias_BHTS = jnp.moveaxis(bias_HN.reshape(-1, *share_BTS.shape), 0, 1)
        return add_bias(logits_BHTS, bias_BHTS + pairs.per_head(self.outer.bias[...]))

    def _psi(self, x):
        return jnp.log(jnp.abs(self.c[...]) * jnp.abs(x) + 1)


def _unit(kernel, bias, outer_H, share_N):
    """Returns what one hidden unit adds, ``[H, N]``."""
    # einsum makes the gradient by the heads' weights ten times as fast on a CPU.
    return jnp.einsum("h,n->hn", outer_H, jax.nn.relu(kernel * share_N + bias))
