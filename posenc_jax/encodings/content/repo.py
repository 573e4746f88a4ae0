r"""RePo, context re-positioning, computes the position of each token from its content.

https://arxiv.org/abs/2512.14391

$$
q_t^{(i)} \gets e^{\mathrm{i}\, p_t \theta_i} q_t^{(i)}, \quad
k_t^{(i)} \gets e^{\mathrm{i}\, p_t \theta_i} k_t^{(i)}, \qquad
p_t = w \cdot \big(\mathrm{silu}(W_g\, x_t) \odot W_c\, x_t\big)
$$

Channel pair i counts as one complex number, theta are RoPE's frequencies, x is the layer's input,
and each head has its own w. Overrides ``observe`` (the cosines and sines); ``Rotary`` rotates by
them.
"""

import jax
from flax import nnx

from posenc_jax.checks import count_of
from posenc_jax.encodings.lib.angles import cos_sin
from posenc_jax.encodings.lib.initial_values import normal
from posenc_jax.encodings.lib.sequence import project
from posenc_jax.encodings.rotary.base import Rotary
from posenc_jax.encodings.rotary.frequencies.base import geometric
from posenc_jax.tokens import Tokens


class RePo(Rotary):
    """Rotates by a real number that a small network makes of each token; positions are not read.

    The authors' model has as many kv heads as query heads. Here a kv head and its queries share
    positions. There, x is the residual stream itself, without a norm, and the first five of 16
    layers keep RoPE.

    Args:
      base: base of the frequencies, as in ``RoPE``; 500000 in the authors' model.
      layout: order of the channels of a pair, as in ``RoPE``.
      hidden: width of the network; by default ``model_dim / 8``, as in the authors' code.
      rngs: source of the initial values, N(0, 0.02).
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
        hidden: int | None = None,
    ):
        super().__init__(head_dim=head_dim, base=base, layout=layout)
        hidden = count_of("hidden", max(1, model_dim // 8) if hidden is None else hidden)
        self.gate_kernel = normal(rngs, model_dim, hidden)
        self.content_kernel = normal(rngs, model_dim, hidden)
        self.position_kernel = normal(rngs, hidden, num_kv_heads)

    def observe(self, x_BTD, tokens: Tokens, state=None):
        """Makes float32 cosines and sines, each ``[B, T, K, head_dim / 2]``."""
        gates = jax.nn.silu(project(x_BTD, self.gate_kernel[...]))
        content = project(x_BTD, self.content_kernel[...])
        positions_BTK = project(gates * content, self.position_kernel[...])
        return cos_sin(positions_BTK[..., None], geometric(self.rotary_dim, self.base)), ()
