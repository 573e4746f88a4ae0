r"""LeRoPE is RoPE with learned frequencies.

Mistral Large 4 (transformers ``mistral_large4``; no paper)

$$ \theta'_i = e^{\alpha_i}\, \theta_i $$

theta are the frequencies of a rule. alpha is trained, starts at 0, and is shared by all layers. It
changes what RoPE's ``prepare`` returns.
"""

import jax.numpy as jnp
from flax import nnx

from posenc_jax.encodings.lib.double import Double, exp
from posenc_jax.encodings.rotary.frequencies.base import Frequencies
from posenc_jax.encodings.rotary.last_rope import LastRoPE


class LeRoPE(LastRoPE):
    """Learns how fast each pair rotates, starting from a frequency rule.

    All layers share alpha, which is not bounded: a pair may come to rotate by more than a radian
    per token. A checkpoint has alpha among its weights; a config does not have it.

    Args:
      frequencies: the rule to start from. Default: RoPE's own. Mistral Large 4 has
        ``YaRNFrequencies(512, 2048.0, attention_factor=1.0)``.
      rotary_dim: number of channels that rotate, the last ones of each head; 64 of 128 in Mistral
        Large 4.
      layout: see ``RoPE``; interleaved as published.
    """

    def __init__(
        self,
        *,
        head_dim: int,
        base: float = 10000.0,
        frequencies: Frequencies | None = None,
        rotary_dim: int | None = None,
        layout: str = "interleaved",
    ):
        super().__init__(
            head_dim=head_dim,
            base=base,
            frequencies=frequencies,
            rotary_dim=rotary_dim,
            layout=layout,
        )
        self.alpha = nnx.Param(jnp.zeros(self.rotary_dim // 2))

    def tables(self, positions, inv_freq, attention_factor):
        learned = exp(Double.of(self.alpha[...]))
        return super().tables(positions, Double.of(inv_freq) * learned, attention_factor)
