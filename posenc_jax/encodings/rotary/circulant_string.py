r"""Circulant-STRING rotates queries and keys by circulant matrices, whose entries are learned.

https://arxiv.org/abs/2502.02562

$$
q_t \gets R_t\, q_t, \quad k_t \gets R_t\, k_t, \qquad
R_t = \exp\Big(\sum_a r_{ta} (C_a - C_a^\top)\Big)
$$

$$ \phi_{aj} = 2 \sum_m c_{am} \sin(2 \pi j m / d) $$

r are the positions on all axes a, and every C is a trained circulant matrix of width d, whose first
column is c. Circulant matrices have the same eigenvectors, the waves of the Fourier transform. So R
rotates each pair of a cosine and a sine of frequency j, on each axis by the position times the rate
phi. The constant and the alternating wave do not rotate. The transform back from waves to channels
cancels between a query and a key. Overrides ``rotate``.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from posenc_jax.checks import check_divides, check_multiple, count_of
from posenc_jax.encodings.lib.angles import cos_sin_of_sum
from posenc_jax.encodings.rotary.base import Rotary
from posenc_jax.encodings.rotary.frequencies.base import geometric
from posenc_jax.encodings.rotary.string import directions
from posenc_jax.lookup import check_width
from posenc_jax.pairs import Side
from posenc_jax.tokens import Tokens


class CirculantSTRING(Rotary):
    """Rotates the Fourier transform of each head, at rates that come from learned matrices.

    Every layer and every kv head, with its queries, has its own matrices. The initial values are
    ours, because the appendix of the paper could not be read: each pair of waves rotates by the
    position along a random direction, at one of RoPE's rates. The equation agrees with two
    implementations of others; code of the authors was not found. The paper says that block sizes
    were tried, and not how blocks lie: here they lie on the diagonal, where matrices commute.

    Args:
      num_axes: number of position axes; positions are ``[B, T, num_axes]``, or ``[B, T]`` for text.
      base: base of the initial rates, as in ``RoPE``.
      block_size: width of the circulant blocks on the diagonal of each matrix, an even divisor of
        ``head_dim`` from 4 on; None for one block.
      rngs: source of the directions.
    """

    per_layer = True

    def __init__(
        self,
        *,
        head_dim: int,
        num_kv_heads: int,
        rngs: nnx.Rngs,
        num_axes: int = 1,
        base: float = 10000.0,
        block_size: int | None = None,
    ):
        super().__init__(head_dim=head_dim, base=base)
        width = head_dim if block_size is None else block_size
        self.block_size = count_of("block_size", width, minimum=4)
        check_divides(block_size=self.block_size, head_dim=head_dim)
        check_multiple(2, block_size=self.block_size)
        blocks, waves = head_dim // self.block_size, self.block_size // 2 - 1
        shape = num_kv_heads, blocks, waves, count_of("num_axes", num_axes)
        rates_NW = geometric(2 * blocks * waves, self.base).reshape(blocks, waves)
        rates_KNWA = rates_NW[None, :, :, None] * directions(rngs.params(), shape)
        # The first columns of the circulant blocks, from which ``rates`` makes these rates.
        sines = jnp.asarray(_sines(self.block_size)[1:])
        columns = jnp.einsum("wc,knwa->knca", sines, rates_KNWA, precision="highest")
        self.columns = nnx.Param(columns / self.block_size)

    def rotate(self, x_BTHC: jax.Array, tokens: Tokens, side: Side) -> jax.Array:
        check_width(x_BTHC, head_dim=self.head_dim)
        x, basis_CC = x_BTHC.astype(jnp.float32), jnp.asarray(self.basis(), jnp.float32)
        x = jnp.einsum("bthc,dc->bthd", x, basis_CC, precision="highest")
        rates_HPA = side.of_kv_heads(self.rates())
        cos, sin = cos_sin_of_sum(tokens.positions, rates_HPA)
        return self.rotate_by(x, cos, sin).astype(x_BTHC.dtype)

    def rates(self) -> jax.Array:
        """Returns by how much each pair of waves rotates, float32 ``[K, P, A]``."""
        columns_KNCA = self.columns[...].astype(jnp.float32)
        sines = jnp.asarray(2 * _sines(self.block_size), jnp.float32)
        rates_KNWA = jnp.einsum("wc,knca->knwa", sines, columns_KNCA, precision="highest")
        return rates_KNWA.reshape(len(rates_KNWA), -1, rates_KNWA.shape[-1])

    def basis(self) -> np.ndarray:
        """Returns the waves, ``[C, C]``: the first of each pair, then the second.

        The pair in front of each block's cosines and sines is the constant and the alternating
        wave.
        """
        d = self.block_size
        angles = 2 * np.pi / d * np.outer(np.arange(d // 2), np.arange(d))
        cosines, sines = np.cos(angles), np.sin(angles)
        sines[0] = np.cos(np.pi * np.arange(d))
        scale = np.full((d // 2, 1), np.sqrt(2 / d))
        scale[0] = np.sqrt(1 / d)
        blocks = np.eye(self.head_dim // d)
        return np.concatenate([np.kron(blocks, scale * waves) for waves in (cosines, sines)])


def _sines(d: int) -> np.ndarray:
    """Returns the sine waves of a block, one for each pair, ``[d / 2, d]``; the first is 0."""
    return np.sin(2 * np.pi / d * np.outer(np.arange(d // 2), np.arange(d)))
