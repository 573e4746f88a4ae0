r"""Selective RoPE rotates queries and keys by angles that depend on content.

https://arxiv.org/abs/2511.17388

$$
q_t^{(i)} \gets e^{\mathrm{i}\, \alpha_{ti}} q_t^{(i)}, \quad
k_t^{(i)} \gets e^{\mathrm{i}\, \alpha_{ti}} k_t^{(i)}, \qquad
\alpha_{ti} = \tau_i \sum_{s \le t} \varphi_i(x_s)
$$

Channel pair i counts as one complex number. The steps phi, which are 1 in RoPE, are computed from
the layer's input x, and tau are the frequencies. Overrides ``observe`` (the cosines and sines);
``Rotary`` rotates by them.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from posenc_jax.checks import check_divides, count_of
from posenc_jax.encodings.lib.angles import cos_sin, rotated
from posenc_jax.encodings.lib.double import Double
from posenc_jax.encodings.lib.initial_values import uniform
from posenc_jax.encodings.lib.sequence import convolved, project, sums_up_to
from posenc_jax.encodings.rotary.base import Rotary
from posenc_jax.encodings.rotary.frequencies.base import geometric
from posenc_jax.lookup import check_width


class SelectiveRoPE(Rotary):
    """Rotates by a sum of steps computed from the tokens; positions are not read.

    ``phi`` comes from the layer's input through a low-rank map and a causal convolution; before
    that, each head's share of the input is scaled to length 1. The released code has angles for
    every head and no grouped queries. Here a kv head and its queries share angles, so that their
    product depends only on the tokens between them. The released Transformer, if it normalises
    queries and keys, does so after the rotation. Its other temperatures and gates are not offered.

    Args:
      num_heads: number of query heads in one layer, a divisor of ``model_dim``.
      head_dim: number of channels in one head; channel i and channel i + head_dim / 2 make a pair.
      base: base of the frequencies ``tau_i = temperature * base ** (-2 i / head_dim)``. The
        released code has a base of 500000 and a temperature of 1, and does not train them by
        default.
      temperature: angle in radians by which one unit of ``phi`` rotates the fastest pair.
      rank: rank of the map to ``phi``; 16 in the released code.
      width: number of tokens that the convolution spans; 4 in the released code. 1 only scales
        channels.
      gate: whether to multiply ``phi`` by a sigmoid of the input, one for each kv head.
      bias: whether to add ``exp(b)`` to ``phi``, so that every token adds to the angle; b starts at
        0.
      rngs: source of the initial values, uniform as in PyTorch's linear and convolution layers.
    """

    per_layer = True

    def __init__(
        self,
        *,
        num_heads: int,
        num_kv_heads: int,
        head_dim: int,
        model_dim: int,
        rngs: nnx.Rngs,
        base: float = 500_000.0,
        temperature: float = 1.0,
        rank: int = 16,
        width: int = 4,
        gate: bool = False,
        bias: bool = False,
    ):
        super().__init__(head_dim=head_dim, base=base)
        # Each head normalises its share of the input.
        check_divides(num_heads=num_heads, model_dim=model_dim)
        rank, width = count_of("rank", rank), count_of("width", width)
        self.num_heads = num_heads
        self.num_kv_heads = num_kv_heads
        self.temperature = temperature
        channels = num_kv_heads * head_dim // 2
        self.down_kernel = uniform(rngs, model_dim, rank, fan_in=model_dim)
        self.up_kernel = uniform(rngs, rank, channels, fan_in=rank)
        self.convolution = uniform(rngs, width, channels, fan_in=width)
        self.bias = nnx.Param(jnp.zeros((num_kv_heads, head_dim // 2))) if bias else None
        gate_kernel = uniform(rngs, model_dim, num_kv_heads, fan_in=model_dim)
        self.gate_kernel = gate_kernel if gate else None
        self.gate_bias = nnx.Param(jnp.zeros(num_kv_heads)) if gate else None

    def observe(self, x_BTD, tokens, state=None):
        """Makes float32 cos and sin, each ``[B, T, K, head_dim / 2]``."""
        state = {"sums": None, "steps": None} if state is None else state
        shares = self._shares(x_BTD)
        steps = project(project(shares, self.down_kernel[...]), self.up_kernel[...])
        steps, of_steps = convolved(steps, self.convolution[...], tokens, state["steps"])
        (high, low), of_sums = sums_up_to(self._phi(shares, steps), tokens, state["sums"])
        tau = self.temperature * geometric(self.rotary_dim, self.base)
        cos, sin = cos_sin(high, tau)
        # The part that float32 lost of a large sum is so small that this angle is exact.
        rest = low * Double.of(tau).high[None, None, None]
        made = rotated(cos, sin, jnp.cos(rest), jnp.sin(rest))
        return made, {"sums": of_sums, "steps": of_steps}

    def _shares(self, x_BTD):
        """Returns the input with each head's share of it scaled to length 1."""
        check_width(x_BTD, model_dim=self.down_kernel.shape[0])
        B, T, D = x_BTD.shape
        shares = x_BTD.astype(jnp.float32).reshape(B, T, self.num_heads, -1)
        shares = shares * jax.lax.rsqrt((shares**2).sum(-1, keepdims=True) + 1e-6)
        return shares.reshape(B, T, D)

    def _phi(self, shares_BTD, steps_BTN):
        """Returns ``phi``, the step of each token, ``[B, T, K, head_dim / 2]``."""
        phi = steps_BTN.reshape(*steps_BTN.shape[:2], self.num_kv_heads, -1)
        if self.bias is not None:
            phi = phi + jnp.exp(self.bias[...])[None, None]
        if self.gate_kernel is not None and self.gate_bias is not None:
            gate = project(shares_BTD, self.gate_kernel[...]) + self.gate_bias[...][None, None]
            phi = phi * jax.nn.sigmoid(gate)[..., None]
        return phi
