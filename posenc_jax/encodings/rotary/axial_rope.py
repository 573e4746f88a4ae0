"""Axial RoPE, rotary positions of images and videos.

https://arxiv.org/abs/2403.13298 (RoPE-ViT)

The position axes turn channel pairs by turns: pair i belongs to axis ``i mod A`` and turns by
``p_axis * base ** (-2 i / d)``, so that each axis has an equal share of fast and slow pairs and a
logit depends on the distance along each axis. A setting of ``RoPE``'s axes.
"""

from posenc_jax.encodings.rope import RoPE


def axial_rope(
    *,
    head_dim: int,
    num_axes: int = 2,
    base: float = 100.0,
    frequencies=None,
    rotary_dim: int | None = None,
    layout: str = "half",
) -> RoPE:
    """RoPE over ``num_axes`` position axes, ``[A, B, T]``; text, ``[B, T]``, is RoPE.

    RoPE-ViT gives every axis the frequencies that are the first axis's here, a hair faster than
    the others', and is not RoPE for text. Its ``base`` is 100, for grids of tens of patches.

    Args:
      num_axes: must divide the number of channel pairs.
      head_dim, base, frequencies, rotary_dim, layout: of ``RoPE``.
    """
    pairs = (head_dim if rotary_dim is None else rotary_dim) // 2
    if num_axes < 1 or pairs % num_axes:
        raise ValueError(
            f"num_axes={num_axes} must divide the {pairs} channel pairs; set rotary_dim to a "
            f"multiple of {2 * max(num_axes, 1)} within head_dim={head_dim}"
        )
    return RoPE(
        head_dim=head_dim,
        base=base,
        frequencies=frequencies,
        axes=tuple(pair % num_axes for pair in range(pairs)),
        rotary_dim=rotary_dim,
        layout=layout,
    )
