r"""CABLE adds a bias that the tokens between a key and a query determine.

https://arxiv.org/abs/2503.08067

$$ z_{mn} = \frac{q_m \cdot k_n}{\sqrt d} - \sum_{l=n+1}^{m} \ln(1 + e^{w_h \cdot x_l + b_h}) $$

x is the layer's input; w and b are trained. FoX computes the same with w and b of the opposite
sign. Overrides ``observe`` and ``score``.
"""

import jax
from flax import nnx

from posenc_jax.encodings.content.fox import ForgetGate, FoX
from posenc_jax.encodings.lib.sequence import project


class ContextGate(ForgetGate):
    """Computes ``-softplus(w . x + b)``, which is the log of a gate."""

    def logs(self, x_BTD):
        return -jax.nn.softplus(project(x_BTD, self.kernel[...]) + self.bias[...][None, None])


class CABLE(FoX):
    """Lowers the logit of a key by a term from each token after it; positions are not read.

    The released code leaves out ``1 / sqrt(head_dim)``; pass ``scale=1.0`` to ``attend`` for that.

    Args:
      bias_init: initial value of b. The default starts like FoX: each token takes 0.7 % off the
        weights of earlier keys. The paper's value could not be verified.
      rngs: source of the initial values of w, uniform as in PyTorch's linear layer.
    """

    def __init__(self, *, num_heads: int, model_dim: int, rngs: nnx.Rngs, bias_init: float = -5.0):
        self.gate = ContextGate(num_heads, model_dim, bias_init, rngs)
