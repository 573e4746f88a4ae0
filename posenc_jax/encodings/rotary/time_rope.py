"""Time-RoPE places frames at continuous times of the world they show.

https://arxiv.org/abs/2512.05076 (BulletTime)

The axes of CogVideoX, time, row and column, have a quarter and twice three eighths of the
channels, with a whole spectrum each. Positions are float ``[B, T, 3]``, from
``posenc_jax.positions.story_time``: slow motion is small steps of time, a pause the same time
again, reverse a falling time. Logits depend on differences of time only. This is a setting of
RoPE's axes and frequencies.
"""

import jax

from posenc_jax.encodings.rotary import axes
from posenc_jax.encodings.rotary.axis_frequencies import Spectra
from posenc_jax.encodings.rotary.frequencies import Frequencies
from posenc_jax.encodings.rotary.rope import RoPE, pairs_of


def time_rope(
    *,
    head_dim: int,
    sections: tuple[int, ...] | None = None,
    base: float | jax.Array = 10000.0,
    frequencies: Frequencies | None = None,
    rotary_dim: int | None = None,
    layout: str = "interleaved",
) -> RoPE:
    """Builds RoPE with three spectra side by side, whose pairs are neighbouring channels.

    The paper's code is not released. Reviews of it print an exponent twice as large, which is this
    with the base squared.

    Args:
      sections: channel pairs of time, row and column; by default in proportion to (8, 12, 12).
      base: base of the frequencies, for time in frames; where times are in seconds, give the
        builder ``frames_per_second``.
      frequencies: rule of each spectrum, as in ``RoPE``.
      head_dim, rotary_dim, layout: keywords of ``RoPE``.
    """
    pairs = pairs_of(head_dim, rotary_dim)
    sections = axes.shares(pairs, (8, 12, 12)) if sections is None else sections
    sections = axes.check_sections(sections, pairs)
    return RoPE(
        head_dim=head_dim,
        base=base,
        frequencies=Spectra(sections, frequencies),
        axes=axes.chunked(sections),
        rotary_dim=rotary_dim,
        layout=layout,
    )
