r"""PoPE, polar coordinate position embedding, takes magnitudes from content, phases from position.

https://arxiv.org/abs/2509.10534

$$
z_{mn} = \frac{1}{\sqrt d} \sum_c \varsigma(q_{mc})\, \varsigma(k_{nc})
\cos\big((m - n)\, b^{-c/d} - \delta_c\big), \qquad \varsigma(x) = \ln(1 + e^x)
$$

The phase delta is trained in each head. Each channel c becomes a pair, so queries and keys become
twice as wide. Overrides ``prepare`` and ``rotate``.
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx

from posenc_jax.checks import check_choice
from posenc_jax.encoding import Encoding
from posenc_jax.encodings.lib.angles import rotated, tables_of_text
from posenc_jax.encodings.rotary.frequencies.base import checked_base, geometric
from posenc_jax.lookup import check_width
from posenc_jax.pairs import Side
from posenc_jax.positions import one_axis
from posenc_jax.tokens import Tokens


class PoPE(Encoding):
    """Takes magnitudes from content and phases from position.

    The phase belongs to the keys, so there is one for each kv head and channel. That each layer has
    its own is our reading of the paper, which speaks of heads. The trained phase is clipped to
    [-2 pi, 0], as in the released code, and has no gradient while it is outside.

    Args:
      head_dim: number of channels in one head, d.
      base: base of the d frequencies, twice as many as RoPE has.
      phase_init: "zero", the default of the released code, or "uniform" in [-2 pi, 0].
      rngs: random numbers for the phases.
    """

    per_layer = True

    def __init__(
        self,
        *,
        num_kv_heads: int,
        head_dim: int,
        rngs: nnx.Rngs,
        base: float = 10000.0,
        phase_init: str = "zero",
    ):
        check_choice(("zero", "uniform"), phase_init=phase_init)
        self.head_dim = head_dim
        self.base = checked_base(base)
        turns = jax.random.uniform(rngs.params(), (num_kv_heads, head_dim))
        self.phase = nnx.Param((-2 * math.pi if phase_init == "uniform" else 0.0) * turns)

    def prepare(self, tokens: Tokens, length):
        """Makes float32 cosines and sines, each ``[B, T, 1, head_dim]``."""
        inv_freq = geometric(2 * self.head_dim, self.base)
        return tables_of_text(one_axis(tokens.positions), inv_freq)

    def rotate(self, x_BTHC: jax.Array, tokens: Tokens, side: Side) -> jax.Array:
        check_width(x_BTHC, head_dim=self.head_dim)
        cos, sin = tokens.made
        magnitude = jax.nn.softplus(x_BTHC.astype(jnp.float32))
        if not side.is_query:
            phase_KC = jnp.clip(self.phase[...].astype(jnp.float32), -2 * math.pi, 0.0)
            phase_11HC = side.of_kv_heads(phase_KC)[None, None]
            cos, sin = rotated(cos, sin, jnp.cos(phase_11HC), jnp.sin(phase_11HC))
        wide = jnp.concatenate([magnitude * cos, magnitude * sin], axis=-1)
        return wide.astype(x_BTHC.dtype)
