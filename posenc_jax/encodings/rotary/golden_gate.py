r"""Golden-gate RoPE rotates each channel pair by the position along a direction of its own.

https://jerryxio.ng/posts/nd-rope (formulas as in copies of its code, which agree)

$$ q_t^{(i)} \gets e^{\mathrm{i}\, \omega_i\, (d_{hi} \cdot p_t)} q_t^{(i)} $$

Keys are rotated alike. The unit vectors d of head h and pair i are spread evenly: on two axes each
is its predecessor rotated by ``(sqrt(5) - 1) / 2`` of half a turn, and on more axes they are the
image of a golden lattice. omega runs from slow to fast. Overrides ``prepare`` (the cosines and
sines); ``Rotary`` rotates by them.
"""

import math
import statistics

import numpy as np

from posenc_jax.checks import check_ascending, check_range, count_of
from posenc_jax.encodings.lib.angles import cos_sin_of_sum
from posenc_jax.encodings.rotary.base import Rotary
from posenc_jax.tokens import Tokens


class GoldenGate(Rotary):
    """Rotates pairs along directions that are spread evenly over heads and pairs.

    Positions ``[B, T, A]`` are real numbers from -1 to 1, as from ``positions.centred_grid``.
    A kv head and its queries rotate alike.

    Args:
      num_axes: number of position axes, 2 or more.
      slowest, fastest: radians by which the slowest and the fastest pair rotate per unit of
        position; the pairs between them ascend geometrically. The defaults are common for images.
      zero_share: share of the pairs that do not rotate.
      head_dim, rotary_dim, layout: keywords of ``RoPE``.
    """

    def __init__(
        self,
        *,
        num_kv_heads: int,
        head_dim: int,
        num_axes: int = 2,
        slowest: float = 0.2,
        fastest: float = 20.0,
        zero_share: float = 0.0,
        rotary_dim: int | None = None,
        layout: str = "half",
    ):
        super().__init__(head_dim=head_dim, rotary_dim=rotary_dim, layout=layout)
        check_ascending(slowest=slowest, fastest=fastest)
        check_range(0, 1, zero_share=zero_share)
        self.num_kv_heads = num_kv_heads
        self.num_axes = count_of("num_axes", num_axes, 2)
        self.slowest = slowest
        self.fastest = fastest
        self.zero_share = zero_share

    def prepare(self, tokens: Tokens, length):
        """Makes float32 cosines and sines, each ``[B, T, K, rotary_dim / 2]``."""
        return cos_sin_of_sum(tokens.positions, self.rates())

    def rates(self) -> np.ndarray:
        """Returns by how much each pair rotates along each axis, float64 ``[K, P, A]``."""
        pairs = self.rotary_dim // 2
        still = round(self.zero_share * pairs)
        steps = np.arange(pairs - still) / max(pairs - still - 1, 1)
        ascending = self.slowest * (self.fastest / self.slowest) ** steps
        rates_P = np.concatenate([np.zeros(still), ascending])
        return rates_P[:, None] * directions(self.num_kv_heads, pairs, self.num_axes)


def directions(num_heads: int, pairs: int, num_axes: int) -> np.ndarray:
    """Returns unit vectors, spread evenly over heads and pairs, ``[num_heads, pairs, axes]``."""
    count = num_heads * pairs
    if num_axes == 2:
        angle = np.arange(count) * math.pi * (math.sqrt(5) - 1) / 2
        vectors = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    else:
        ratio = 2.0
        for _ in range(10):
            ratio = (1 + ratio) ** (1 / (num_axes + 1))
        lattice = np.arange(1, count + 1)[:, None] * ratio ** -np.arange(1.0, num_axes + 1)
        # Vectors of normally distributed numbers have no preferred direction.
        vectors = np.vectorize(statistics.NormalDist().inv_cdf)(lattice % 1)
        vectors = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors.reshape(num_heads, pairs, num_axes)
