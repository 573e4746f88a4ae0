r"""DAPE, data-adaptive positional encoding, corrects biases by distance with all heads' logits.

https://arxiv.org/abs/2405.14722

$$ z'_{mn} = z_{mn} + B_{mn} + f\big([z_{mn} ; B_{mn}]\big) $$

z are the logits of all H heads between one query and one key, B are their biases by distance, and f
is a small network ``2 H -> hidden -> H`` with a leaky ReLU. Overrides ``score``.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from posenc_jax.checks import check_choice
from posenc_jax.encoding import Encoding
from posenc_jax.encodings.bias.alibi import ALiBi
from posenc_jax.encodings.bias.kerple import KerpleLog
from posenc_jax.encodings.lib.initial_values import uniform


class DAPE(Encoding):
    """Corrects a bias by distance with a network over all heads' logits of the same pair.

    The network mixes heads, so attention cannot be sharded over heads. All parameters,
    KERPLE's too, are per layer, as in the released code. DAPE v2 (2410.04798), whose network also
    reads the logits of neighbouring keys, is not in the library.

    Args:
      bias: where B comes from, "kerple_log" (the paper's best) or "alibi".
      hidden: width of the network; 32 in the paper.
      rngs: source of the initial values; weights and biases of the network are uniform within
        ``1 / sqrt(inputs)``, PyTorch's default, which the released code uses.
    """

    per_layer = True

    def __init__(
        self, *, num_heads: int, rngs: nnx.Rngs, bias: str = "kerple_log", hidden: int = 32
    ):
        check_choice(("kerple_log", "alibi"), bias=bias)
        kerple = bias == "kerple_log"
        self.bias = (
            KerpleLog(num_heads=num_heads, rngs=rngs) if kerple else ALiBi(num_heads=num_heads)
        )

        self.of_logit = uniform(rngs, num_heads, hidden, fan_in=2 * num_heads)
        self.of_bias = uniform(rngs, num_heads, hidden, fan_in=2 * num_heads)
        self.hidden_bias = uniform(rngs, hidden, fan_in=2 * num_heads)
        self.out = uniform(rngs, num_heads, hidden, fan_in=hidden)
        self.out_bias = uniform(rngs, num_heads, fan_in=hidden)

    def score(self, logits_BHTS, pairs):
        num_heads = pairs.side.num_heads
        if logits_BHTS.shape[1] != num_heads:
            raise ValueError(
                f"DAPE mixes heads, so it needs all num_heads={num_heads} at once, but was given "
                f"{logits_BHTS.shape[1]}: do not shard attention over heads"
            )
        bias_BHTS = self.bias.score(jnp.zeros_like(logits_BHTS), pairs)
        hidden_BETS = (
            jnp.einsum("he,bhts->bets", pairs.of_heads(self.of_logit[...]), logits_BHTS)
            + jnp.einsum("he,bhts->bets", pairs.of_heads(self.of_bias[...]), bias_BHTS)
            + self.hidden_bias[...][None, :, None, None]
        )
        hidden_BETS = jax.nn.leaky_relu(hidden_BETS, 0.01)
        change_BHTS = jnp.einsum("he,bets->bhts", pairs.of_heads(self.out[...]), hidden_BETS)
        change_BHTS = change_BHTS + pairs.per_head(self.out_bias[...])
        return logits_BHTS + bias_BHTS + change_BHTS
