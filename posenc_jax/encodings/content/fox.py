r"""FoX, the Forgetting Transformer, lowers the weights of earlier keys by a gate at each token.

https://arxiv.org/abs/2503.02130

$$ z_{mn} = \frac{q_m \cdot k_n}{\sqrt d} + \sum_{l=n+1}^{m} \ln \sigma(w_h \cdot x_l + b_h) $$

x is the layer's input; w and b are trained. Every token after the key multiplies the key's
unnormalised weight by a gate below 1. Overrides ``observe`` (the sums up to each token) and
``score``.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from posenc_jax.encoding import Encoding
from posenc_jax.encodings.lib.initial_values import uniform
from posenc_jax.encodings.lib.sequence import project, sums_up_to


class ForgetGate(nnx.Module):
    """Computes the log of one gate for each head and token, and running sums of these.

    Args:
      bias_init: initial value of b.
      rngs: source of the initial values of w.
    """

    def __init__(self, num_heads: int, model_dim: int, bias_init: float, rngs: nnx.Rngs):
        self.kernel = uniform(rngs, model_dim, num_heads, fan_in=model_dim)
        self.bias = nnx.Param(jnp.full((num_heads,), bias_init, jnp.float32))

    def __call__(self, x_BTD, tokens, state=None):
        """Returns the sums of the log gates up to each token, and a state; see ``sums_up_to``."""
        return sums_up_to(self.logs(x_BTD), tokens, state)

    def logs(self, x_BTD):
        """Returns the log of each gate, float32 ``[B, T, H]``."""
        gate_BTH = project(x_BTD, self.kernel[...]) + self.bias[...][None, None]
        return jax.nn.log_sigmoid(gate_BTH)


def decay(q_sums, k_sums, pairs):
    """Sums the log gates between each query and each key, float32 ``[B, H, T, S]``.

    The result is never positive, also for a key ahead of its query.
    """
    q_high, q_low, k_high, k_low = (
        jnp.moveaxis(pairs.of_heads(jnp.moveaxis(sums_BTH, -1, 0)), 0, 1)
        for sums_BTH in (*q_sums, *k_sums)
    )
    between = q_high[..., None] - k_high[..., None, :]
    return -abs(between + (q_low[..., None] - k_low[..., None, :]))


class FoX(Encoding):
    """Lowers the logit of a key by gates of the tokens after it; positions are not read.

    Args:
      bias_init: initial value of b. 5, from x-transformers, starts close to no forgetting: each
        token takes 0.7 % off the weights of earlier keys. At 0 it would take half.
      rngs: source of the initial values of w, uniform as in PyTorch's linear layer.
    """

    per_layer = True

    def __init__(self, *, num_heads: int, model_dim: int, rngs: nnx.Rngs, bias_init: float = 5.0):
        self.gate = ForgetGate(num_heads, model_dim, bias_init, rngs)

    def observe(self, x_BTD, tokens, state=None):
        """Makes sums of log gates as ``running_sum`` does, two float32 arrays ``[B, T, H]``."""
        return self.gate(x_BTD, tokens, state)

    def score(self, logits_BHTS, pairs):
        return logits_BHTS + decay(pairs.q_tokens.made, pairs.k_tokens.made, pairs)
