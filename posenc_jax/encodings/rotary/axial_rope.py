r"""Axial RoPE rotates by the positions on several axes, for images and videos.

https://arxiv.org/abs/2403.13298 (RoPE-ViT)

$$
q_t^{(i)} \gets e^{\mathrm{i}\, p_{t,a(i)}\, \theta_i} q_t^{(i)}, \qquad
a(i) = i \bmod A, \quad \theta_i = b^{-2i/d}
$$

Keys are rotated alike. The channel pairs i alternate between the A position axes, so that each axis
has an equal share of fast and slow pairs and a logit depends on the distance along each axis.
Axial RoPE is ``RoPE`` with an allocation of axes.
"""

from typing import Any

from posenc_jax.checks import check_divides
from posenc_jax.encodings.lib.layouts import pairs_of
from posenc_jax.encodings.rotary.frequencies.base import Frequencies
from posenc_jax.encodings.rotary.rope import RoPE


def axial_rope(
    *,
    head_dim: int,
    num_axes: int = 2,
    base: float = 100.0,
    frequencies: Frequencies | None = None,
    rotary_dim: int | None = None,
    layout: str = "half",
) -> RoPE:
    """Builds RoPE over ``num_axes`` position axes, ``[B, T, A]``; text, ``[B, T]``, is RoPE.

    In RoPE-ViT every axis has the frequencies that only the first axis has here (the other axes are
    slightly slower), so RoPE-ViT on text is not RoPE. Its ``base`` is 100, for grids of tens of
    patches.

    Args:
      num_axes: number of position axes, which divides the number of channel pairs.
      head_dim, base, frequencies, rotary_dim, layout: keywords of ``RoPE``.
    """
    pairs = pairs_of(head_dim, rotary_dim)
    check_divides(num_axes=num_axes, pairs=pairs)
    alternating = tuple(pair % num_axes for pair in range(pairs))
    rope: dict[str, Any] = dict(head_dim=head_dim, base=base, rotary_dim=rotary_dim, layout=layout)
    return RoPE(axes=alternating, frequencies=frequencies, **rope)
