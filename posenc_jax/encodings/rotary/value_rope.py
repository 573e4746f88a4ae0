r"""ValueRoPE is RoPE that rotates values too, and rotates outputs back.

DeepSeek-V4 (transformers ``deepseek_v4``; no paper)

$$ o_m = R(-m) \sum_n w_{mn}\, R(n)\, v_n $$

w are the weights that RoPE gives, and R(n) rotates by position n as RoPE does. Values are rotated
as keys are, and their sum is rotated back by the angle of the query, so a value reaches a query
rotated by their distance. Overrides ``prepare``, ``rotate``, ``rotate_values`` and ``rotate_back``.
"""

import jax

from posenc_jax.encodings.rotary.last_rope import LastRoPE
from posenc_jax.pairs import Side
from posenc_jax.tokens import Tokens


class ValueRoPE(LastRoPE):
    """Rotates queries, keys and values, and rotates outputs back.

    In DeepSeek-V4 the keys, one kv head, are also the values. The model's layers with a window have
    plain RoPE, and the others YaRN with base 160000: a pattern of layers (``Layers``).

    Args:
      head_dim: number of channels in one head, also of values.
      frequencies: see ``RoPE``. The rule's attention factor must be 1, or values would grow by it.
      rotary_dim: number of channels that rotate, the last ones of each head; 64 of 512 in
        DeepSeek-V4.
      layout: see ``RoPE``; interleaved as published.
    """

    def tables(self, positions, inv_freq, attention_factor):
        if isinstance(attention_factor, jax.Array) or attention_factor != 1:
            raise ValueError(
                f"frequencies={self.frequencies!r} have an attention factor of {attention_factor}, "
                "by which values would grow too; give the rule attention_factor=1.0"
            )
        return super().tables(positions, inv_freq, attention_factor)

    def rotate_values(self, v_BSKC: jax.Array, tokens: Tokens, side: Side) -> jax.Array:
        return self.rotate(v_BSKC, tokens, side)

    def rotate_back(self, out_BTHC: jax.Array, tokens: Tokens, side: Side) -> jax.Array:
        cos, sin = tokens.made
        return self.rotate_by(out_BTHC, cos, -sin)
