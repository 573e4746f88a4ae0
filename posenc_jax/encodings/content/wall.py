r"""Wall attention decays each channel of a query-key product by gates of the tokens after the key.

flash-linear-attention, ``fla/ops/wall_attn`` (no paper)

$$
z_{mn} = \frac{1}{\sqrt d} \sum_c q_{mc}\, k_{nc} \prod_{l=n+1}^{m} \sigma(W_h x_l + b_h)_c
$$

x is the layer's input; W and b are trained. The product decays and not the weight: the logits of
far keys go to 0, which does not hide them. Overrides ``observe`` (the sums up to each token) and
``score`` (which recomputes the products).
"""

import jax
import jax.numpy as jnp
from flax import nnx

from posenc_jax.encoding import Encoding
from posenc_jax.encodings.content.fox import ForgetGate, decay
from posenc_jax.encodings.lib.initial_values import normal
from posenc_jax.encodings.lib.one_by_one import sum_one_by_one
from posenc_jax.encodings.lib.sequence import project, sums_up_to
from posenc_jax.lookup import check_width
from posenc_jax.pairs import Pairs


class Wall(Encoding):
    """Multiplies each channel's product by the gates of the tokens between key and query.

    There is a gate for each query head and channel, also where query heads share a kv head. A
    token's own gate acts on the keys before it. Positions are not read. The products are computed
    one channel after the other, never as two factors that could overflow, which takes several
    times as long as attention without positions.

    Args:
      head_dim: number of channels in one head, d.
      bias_init: initial value of b, 8 as released: a token takes 0.03 % off the products of earlier
        keys.
      forget_gate: whether to add FoX's bias, which hides far keys.
      rngs: source of the initial values of W, N(0, 0.02), and of FoX's.
    """

    per_layer = True

    def __init__(
        self,
        *,
        num_heads: int,
        head_dim: int,
        model_dim: int,
        rngs: nnx.Rngs,
        bias_init: float = 8.0,
        forget_gate: bool = False,
    ):
        self.head_dim = head_dim
        self.kernel = normal(rngs, model_dim, num_heads, head_dim)
        self.bias = nnx.Param(jnp.full((num_heads, head_dim), bias_init, jnp.float32))
        self.gate = ForgetGate(num_heads, model_dim, bias_init, rngs) if forget_gate else None

    def observe(self, x_BTD, tokens, state=None):
        """Makes ``running_sum`` of log gates, ``[B, T, H, C]`` twice, and FoX's sums, if any."""
        of_channels, of_gate = (None, None) if state is None else state
        D, H, C = self.kernel.shape
        gates_BTN = project(x_BTD, self.kernel[...].reshape(D, H * C))
        gates_BTHC = gates_BTN.reshape(*x_BTD.shape[:2], H, C) + self.bias[...][None, None]
        sums, of_channels = sums_up_to(jax.nn.log_sigmoid(gates_BTHC), tokens, of_channels)
        gate, of_gate = self.gate(x_BTD, tokens, of_gate) if self.gate else (None, None)
        return (sums, gate), (of_channels, of_gate)

    def score(self, logits_BHTS, pairs: Pairs):
        check_width(pairs.q, head_dim=self.head_dim)
        q_sums, q_gate = pairs.q_tokens.made
        k_sums, k_gate = pairs.k_tokens.made
        logits_BHTS = pairs.scale * self._products(pairs, q_sums, k_sums)
        return logits_BHTS if self.gate is None else logits_BHTS + decay(q_gate, k_gate, pairs)

    def _products(self, pairs, q_sums, k_sums):
        """Sums the channels one after the other, so that ``[T, S, channels]`` never exists."""

        def by_channel(x_BTHC):
            return jnp.moveaxis(x_BTHC.astype(jnp.float32), (3, 2), (0, 2))

        def of_heads(sums_BTHC):
            return pairs.of_heads(jnp.moveaxis(sums_BTHC, 2, 0))

        q_CBHT, k_CBKS = by_channel(pairs.q), by_channel(pairs.k)
        sums = [jnp.moveaxis(of_heads(x), (3, 0), (0, 2)) for x in (*q_sums, *k_sums)]

        return sum_one_by_one(_channel, (q_CBHT, k_CBKS, *sums))


def _channel(q_BHT, k_BKS, q_high, q_low, k_high, k_low):
    """Returns the decayed products of one channel, ``[B, H, T, S]``."""
    group = q_BHT.shape[1] // k_BKS.shape[1]
    k_BHS = k_BKS if group == 1 else jnp.repeat(k_BKS, group, axis=1)
    between = q_high[..., None] - k_high[..., None, :]
    between = between + (q_low[..., None] - k_low[..., None, :])
    # The exponent is negative for a key ahead of its query too.
    return q_BHT[..., None] * k_BHS[..., None, :] * jnp.exp(-abs(between))
