r"""Golden-gate RoPE rotates each channel pair by the position along a direction of its own.

https://jerryxio.ng/posts/nd-rope (formulas as in copies of its code, which agree)

$$ q_t^{(i)} \gets e^{\mathrm{i}\, \omega_i\, (d_{hi} \cdot p_t)} q_t^{(i)} $$

Keys are rotated alike. The unit vectors d of head h and pair i are spread evenly: on two axes each
is its predecessor rotated by ``(sqrt(5) - 1) / 2`` of half a turn, and on more axes they are the
image of a golden lattice. omega runs from slow to fast. ``RoPE`` with a matrix of axes does this.
"""

import dataclasses
import math
import statistics

import numpy as np

from posenc_jax.encodings.lib.axes import Matrix, as_tuples
from posenc_jax.encodings.lib.layouts import pairs_of
from posenc_jax.encodings.rotary.frequencies.base import Frequencies, Length, Rates
from posenc_jax.encodings.rotary.rope import RoPE
from posenc_jax.fields import check_ascending, check_range, count_of


@dataclasses.dataclass(frozen=True)
class Ascending(Frequencies):
    """Gives frequencies that ascend geometrically, after some that are 0.

    Attributes:
      slowest, fastest: radians per unit of position.
      zero_share: share of the pairs that do not rotate.
    """

    slowest: float
    fastest: float
    zero_share: float = 0.0

    def __post_init__(self):
        check_ascending(slowest=self.slowest, fastest=self.fastest)
        check_range(0, 1, zero_share=self.zero_share)

    def __call__(self, channels: int, base: float, length: Length) -> Rates:
        pairs = channels // 2
        still = round(self.zero_share * pairs)
        steps = np.arange(pairs - still) / max(pairs - still - 1, 1)
        ascending = self.slowest * (self.fastest / self.slowest) ** steps
        return np.concatenate([np.zeros(still), ascending]), 1.0


def golden_gate(
    *,
    num_kv_heads: int,
    head_dim: int,
    num_axes: int = 2,
    slowest: float = 0.2,
    fastest: float = 20.0,
    zero_share: float = 0.0,
    rotary_dim: int | None = None,
    layout: str = "half",
) -> RoPE:
    """Builds RoPE whose pairs rotate along directions that are spread evenly over heads and pairs.

    Positions ``[B, T, A]`` are real numbers from -1 to 1, as from ``positions.centred_grid``.
    A kv head and its queries rotate alike.

    Args:
      num_axes: number of position axes, 2 or more.
      slowest, fastest, zero_share: attributes of ``Ascending``. The defaults are common for images.
      head_dim, rotary_dim, layout: keywords of ``RoPE``.
    """
    count_of("num_axes", num_axes, 2)
    return RoPE(
        head_dim=head_dim,
        frequencies=Ascending(slowest, fastest, zero_share),
        axes=directions(num_kv_heads, pairs_of(head_dim, rotary_dim), num_axes),
        rotary_dim=rotary_dim,
        layout=layout,
    )


def directions(num_heads: int, pairs: int, num_axes: int) -> Matrix:
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
    return as_tuples(vectors.reshape(num_heads, pairs, num_axes))
