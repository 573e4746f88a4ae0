r"""Time-RoPE rotates by continuous world times, the times of what a video's frames show.

https://arxiv.org/abs/2512.05076 (BulletTime)

$$
q_t^{(a,j)} \gets e^{\mathrm{i}\, p_{t,a}\, b^{-j/P_a}} q_t^{(a,j)}, \qquad j = 0, \dots, P_a - 1
$$

Keys are rotated alike. As in CogVideoX, time has a quarter of the channels, row and column have
three eighths each, and each axis a has a whole spectrum over its P_a pairs. Positions are float
``[B, T, 3]``, from ``posenc_jax.positions.story_time``: slow motion is small steps of time, a pause
repeats a time, and reverse motion is falling time. Logits depend on differences of time only.
Time-RoPE is ``RoPE`` with an allocation of axes and a frequency rule.
"""

from typing import Any

from posenc_jax.encodings.lib import axes
from posenc_jax.encodings.lib.layouts import pairs_of
from posenc_jax.encodings.rotary.frequencies.base import Frequencies
from posenc_jax.encodings.rotary.frequencies.by_axis import Spectra
from posenc_jax.encodings.rotary.rope import RoPE


def time_rope(
    *,
    head_dim: int,
    sections: tuple[int, ...] | None = None,
    base: float = 10000.0,
    frequencies: Frequencies | None = None,
    rotary_dim: int | None = None,
    layout: str = "interleaved",
) -> RoPE:
    """Builds RoPE with three spectra side by side, whose pairs are neighbouring channels.

    The paper's code is not released. Reviews of the paper print an exponent twice as large, which
    is the same as squaring the base.

    Args:
      sections: channel pairs of time, row and column; by default in proportion to (8, 12, 12).
      base: base of the frequencies, for time in frames; where times are in seconds, give the
        builder ``frames_per_second``.
      frequencies: rule of each spectrum, as in ``RoPE``.
      head_dim, rotary_dim, layout: keywords of ``RoPE``.
    """
    pairs = pairs_of(head_dim, rotary_dim)
    sections = axes.sections_of(pairs, sections, (8, 12, 12))
    spectra = Spectra(sections, frequencies)
    rope: dict[str, Any] = dict(head_dim=head_dim, base=base, rotary_dim=rotary_dim, layout=layout)
    return RoPE(axes=axes.chunked(sections), frequencies=spectra, **rope)
