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
        hidden = jax.nn.relu(self.inner(share_BTS[..., None]))
        bias_BTSH = hidden @ tile.of_heads(self.outer.kernel[...].T).T
        bias_BTSH = bias_BTSH + tile.of_heads(self.outer.bias[...])[None, None, None]
        return add_bias(logits_BHTS, jnp.moveaxis(bias_BTSH, -1, 1))

    def _psi(self, x):
        return jnp.log(jnp.abs(self.c[...] * x) + 1)
