r"""RoPE-Mixed learns for each channel pair a direction in the image and a frequency along it.

https://arxiv.org/abs/2403.13298 (RoPE-ViT)

$$ q_t^{(i)} \gets e^{\mathrm{i}\, f_{hi} \cdot (r_t, c_t)} q_t^{(i)} $$

Keys are rotated alike. r and c are row and column, and the vectors f of head h are trained.
Overrides ``rotate``.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from posenc_jax.checks import check_multiple
from posenc_jax.encodings.lib.angles import cos_sin_of_sum
from posenc_jax.encodings.lib.double import Double
from posenc_jax.encodings.rotary.base import Rotary
from posenc_jax.pairs import Side
from posenc_jax.tokens import Tokens


class RoPEMixed(Rotary):
    """Rotates every pair by the position along a trained direction, at a trained rate.

    Every layer and every kv head, with its queries, has its own vectors f. Positions are
    ``[B, T, 2]``, row and column; the released code has the column first, in positions and in
    vectors. A class token is at (0, 0), where nothing rotates.

    Args:
      head_dim: number of channels in one head, a multiple of 4.
      base: base of the initial rates, ``base ** (-4 j / head_dim)``. At the start half of the pairs
        have one random direction, drawn for each kv head, and half that at a right angle to it.
      layout: see ``RoPE``; interleaved as published.
      rngs: source of the directions.
    """

    per_layer = True

    def __init__(
        self,
        *,
        num_kv_heads: int,
        head_dim: int,
        rngs: nnx.Rngs,
        base: float = 10.0,
        layout: str = "interleaved",
    ):
        check_multiple(4, head_dim=head_dim)  # pairs come in twos
        super().__init__(head_dim=head_dim, base=base, layout=layout)
        angle_K1 = jax.random.uniform(rngs.params(), (num_kv_heads, 1), maxval=2 * math.pi)
        rate = self.base ** (-4 * np.arange(head_dim // 4) / head_dim)
        rate_1P = Double.of(rate).high[None]
        # (row, column): a direction, and the one at a right angle to it.
        along = rate_1P * jnp.sin(angle_K1), rate_1P * jnp.cos(angle_K1)
        across = rate_1P * jnp.cos(angle_K1), -rate_1P * jnp.sin(angle_K1)
        halves = jnp.stack([jnp.stack(along, -1), jnp.stack(across, -1)], axis=1)
        self.vectors = nnx.Param(halves.reshape(num_kv_heads, head_dim // 2, 2))

    def rotate(self, x_BTHC: jax.Array, tokens: Tokens, side: Side) -> jax.Array:
        vectors_HPA = side.of_kv_heads(self.vectors[...].astype(jnp.float32))
        return self.rotate_by(x_BTHC, *cos_sin_of_sum(tokens.positions, vectors_HPA))
