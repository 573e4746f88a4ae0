r"""GRAPE-M is RoPE with learned frequencies.

https://arxiv.org/abs/2512.07805

$$ q_t^{(i)} \gets e^{-\mathrm{i}\, p_t\, e^{f_i}} q_t^{(i)} $$

Keys are rotated alike. f is trained, and the rotation is clockwise. Overrides ``rotate``.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from posenc_jax.encodings.lib.angles import cos_sin
from posenc_jax.encodings.lib.double import Double
from posenc_jax.encodings.rotary.base import Rotary
from posenc_jax.encodings.rotary.frequencies.base import geometric
from posenc_jax.pairs import Side
from posenc_jax.positions import one_axis
from posenc_jax.tokens import Tokens

# The trained parameter is 16 f, so that an optimizer's steps move f by a sixteenth.
_SCALE = 16.0


class GrapeM(Rotary):
    """Learns in each layer how fast pairs rotate, starting from RoPE.

    In the published models a norm follows the rotation. The norm's learned weights for each channel
    make logits depend on more than the distance. ``qk_norm`` of our decoder comes before the
    rotation.

    Args:
      base: base of the initial rates, as in ``RoPE``.
      by_head: whether each kv head, with its queries, has rates of its own.
      rngs: not used, since rates start as those of RoPE; accepted so that layers are made alike.
    """

    per_layer = True

    def __init__(
        self,
        *,
        head_dim: int,
        num_kv_heads: int,
        rngs: nnx.Rngs,
        base: float = 10000.0,
        layout: str = "half",
        by_head: bool = False,
    ):
        super().__init__(head_dim=head_dim, base=base, layout=layout)
        logs_P = logs_of_rates(head_dim, self.base)
        self.logs = nnx.Param(_SCALE * jnp.stack([logs_P] * (num_kv_heads if by_head else 1)))

    def rotate(self, x_BTHC: jax.Array, tokens: Tokens, side: Side) -> jax.Array:
        rates_KP = jnp.exp(self.logs[...].astype(jnp.float32) / _SCALE)
        rates_HP = rates_KP if len(rates_KP) == 1 else side.of_kv_heads(rates_KP)
        positions = one_axis(tokens.positions)[..., None, None]
        cos, sin = cos_sin(positions, rates_HP[None, None])
        return self.rotate_by(x_BTHC, cos, -sin)


def logs_of_rates(head_dim: int, base: float) -> jax.Array:
    """Returns the logarithms of RoPE's frequencies, float32 ``[head_dim / 2]``."""
    return jnp.log(Double.of(geometric(head_dim, base)).high)
