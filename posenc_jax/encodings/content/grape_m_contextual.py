r"""Contextual GRAPE-M rotates queries and keys by steps that the tokens before them set.

https://arxiv.org/abs/2512.07805

$$
q_t^{(i)} \gets e^{-\mathrm{i}\, \alpha_{ti}} q_t^{(i)}, \quad
k_t^{(i)} \gets e^{-\mathrm{i}\, \alpha_{ti}} k_t^{(i)}, \qquad
\alpha_{ti} = e^{f_i} \sum_{s < t} \sigma\Big(\frac{w \cdot x_s + b}{16}\Big)
$$

Channel pair i counts as one complex number; f, w and b are trained, and x is the layer's input.
Overrides ``observe`` (the cosines and sines); ``Rotary`` rotates by them.
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx

from posenc_jax.encodings.lib.angles import cos_sin, rotated
from posenc_jax.encodings.lib.sequence import project, sums_up_to
from posenc_jax.encodings.rotary.base import Rotary
from posenc_jax.encodings.rotary.grape_m import logs_of_rates
from posenc_jax.tokens import Tokens


class GrapeMContextual(Rotary):
    """Rotates by a sum of steps computed from the tokens before; positions are not read.

    Comments in the authors' code speak of steps near 0.001, but at its initial values a step is
    0.4, here too.

    Args:
      base: base of the initial rates ``exp(f_i)``, as in ``RoPE``.
      layout: order of the channels of a pair, as in ``RoPE``.
      by_head: whether each kv head, with its queries, has steps of its own.
      rngs: source of w, N(0, 0.5 / sqrt(model_dim)). b starts at -6.9.
    """

    per_layer = True

    def __init__(
        self,
        *,
        head_dim: int,
        num_kv_heads: int,
        model_dim: int,
        rngs: nnx.Rngs,
        base: float = 10000.0,
        layout: str = "half",
        by_head: bool = False,
    ):
        super().__init__(head_dim=head_dim, base=base, layout=layout)
        steps = num_kv_heads if by_head else 1
        draw = jax.random.normal(rngs.params(), (model_dim, steps))
        self.kernel = nnx.Param(0.5 * model_dim**-0.5 * draw)
        self.bias = nnx.Param(jnp.full((steps,), math.log(math.expm1(1e-3))))
        self.logs = nnx.Param(logs_of_rates(head_dim, self.base))

    def observe(self, x_BTD, tokens: Tokens, state=None):
        """Makes float32 cos and sin of the clockwise angles, ``[B, T, K or 1, pairs]``."""
        gates_BTK = project(x_BTD, self.kernel[...]) + self.bias[...][None, None]
        steps_BTK = jax.nn.sigmoid(gates_BTK / 16)
        sums, state = sums_up_to(steps_BTK, tokens, state)
        rates_P = jnp.exp(self.logs[...].astype(jnp.float32))
        high, low = (x_BTK[..., None] for x_BTK in sums)
        cos, sin = cos_sin(high, rates_P)
        # The angle excludes the token's own step. This and the part that float32 lost are small.
        rest = (low - steps_BTK[..., None]) * rates_P[None, None, None]
        cos, sin = rotated(cos, sin, jnp.cos(rest), jnp.sin(rest))
        return (cos, -sin), state
