"""Time-RoPE: frames at continuous times of the world they show.

https://arxiv.org/abs/2512.05076 (BulletTime)

The axes of CogVideoX, time, row and column, have a quarter and twice three eighths of the
channels, with a whole spectrum each. Positions are float ``[3, B, T]``, from
``posenc_jax.rotary.positions.story_time``: slow motion is small steps of time, a pause the same
time again, reverse a falling time. Logits depend on differences of time only. A setting of RoPE's
axes and frequencies.
"""

from posenc_jax.encodings.rope import RoPE, pairs_of
from posenc_jax.rotary import axes
from posenc_jax.rotary.axis_frequencies import Spectra


def time_rope(
    *,
    head_dim: int,
    sections: tuple[int, ...] | None = None,
    base: float = 10000.0,
    frequencies=None,
    rotary_dim: int | None = None,
    layout: str = "interleaved",
) -> RoPE:
    """Three spectra side by side, neighbouring channels a pair.

    The paper's code is not released. Reviews of it print an exponent twice as large, which is this
    with the base squared.

    Args:
      sections: channel pairs of time, row and column. Default: in the proportions of (8, 12, 12).
      base: for time in frames; of seconds, the builder takes the frames a second.
      frequencies: the rule of each spectrum, as in ``RoPE``.
      head_dim, rotary_dim, layout: as in ``RoPE``.
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
