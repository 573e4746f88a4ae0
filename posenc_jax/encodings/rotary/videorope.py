r"""VideoRoPE gives time the slowest channel pairs, whose periods are longer than a video.

https://arxiv.org/abs/2502.05173

$$
q_t^{(i)} \gets e^{\mathrm{i}\, p_{t,a(i)}\, \theta_i} q_t^{(i)}, \qquad
a(i) = \begin{cases}
\text{row} & i < d/2 - P,\ i \text{ even} \\
\text{column} & i < d/2 - P,\ i \text{ odd} \\
\text{time} & \text{the last } P \text{ pairs}
\end{cases}
$$

Keys are rotated alike. All functions here build ``RoPE`` with an allocation of axes. Positions are
``[B, T, 3]``, best from ``posenc_jax.positions.videorope``, and text, ``[B, T]``, has the same
position on every axis. The published base is 1e6.
"""

from typing import Any

from posenc_jax.checks import check_range, count_of
from posenc_jax.encodings.lib import axes
from posenc_jax.encodings.lib.layouts import pairs_of
from posenc_jax.encodings.rotary.frequencies.base import Default, Frequencies
from posenc_jax.encodings.rotary.frequencies.by_axis import ByAxis
from posenc_jax.encodings.rotary.frequencies.ntk import NTKFrequencies
from posenc_jax.encodings.rotary.rope import RoPE


def videorope(
    *,
    head_dim: int,
    sections: tuple[int, ...] | None = None,
    base: float = 10000.0,
    frequencies: Frequencies | None = None,
    rotary_dim: int | None = None,
    layout: str = "half",
) -> RoPE:
    """Builds VideoRoPE (LTA): of the fast pairs, even ones rotate by row and odd ones by column.

    Args:
      sections: channel pairs of time, row and column, the last two alike; by default in proportion
        to (16, 24, 24).
      head_dim, base, frequencies, rotary_dim, layout: keywords of ``RoPE``.
    """
    allocation = _allocation(sections, pairs_of(head_dim, rotary_dim))
    rope: dict[str, Any] = dict(head_dim=head_dim, base=base, rotary_dim=rotary_dim, layout=layout)
    return RoPE(axes=allocation, frequencies=frequencies, **rope)


def videorope_pp(
    *,
    head_dim: int,
    train_length: int,
    factor: float = 4.0,
    sections: tuple[int, ...] | None = None,
    base: float = 10000.0,
    rotary_dim: int | None = None,
    layout: str = "half",
) -> RoPE:
    r"""Builds VideoRoPE++ (YaRN-V): VideoRoPE for longer videos, without training.

    https://github.com/Wiselnn570/VideoRoPE

    $$ b'_{\text{time}} = b \cdot \Big(\frac{s L - 1}{L - 1}\Big)^{d/(d-2)} $$

    Only pairs of time are slowed down. Despite its name the released code (``videorope++_v1``)
    slows them down by NTK's larger base, without a temperature.
    ``make("videorope", frequencies=ByAxis(allocation, rules))`` has YaRN's own rule on the pairs of
    time, with ``YaRNFrequencies(L, factor, attention_factor=1.0)`` as the first of the rules and
    ``Default()`` as the others.

    Args:
      train_length: L, number of tokens in a training sequence; 32768 as published.
      factor: target length divided by training length; 4 as published.
      head_dim, sections, base, rotary_dim, layout: keywords of ``videorope``.
    """
    check_range(1, factor=factor)
    count_of("train_length", train_length, 2)  # NTK divides by L - 1.
    allocation = _allocation(sections, pairs_of(head_dim, rotary_dim))
    slower = NTKFrequencies((factor * train_length - 1) / (train_length - 1))
    frequencies = ByAxis(allocation, (slower, Default(), Default()))
    rope: dict[str, Any] = dict(head_dim=head_dim, base=base, rotary_dim=rotary_dim, layout=layout)
    return RoPE(axes=allocation, frequencies=frequencies, **rope)


def hope_hybrid(
    *,
    head_dim: int,
    sections: tuple[int, ...] | None = None,
    base: float = 10000.0,
    frequencies: Frequencies | None = None,
    rotary_dim: int | None = None,
    layout: str = "half",
) -> RoPE:
    r"""Builds HoPE of vision-language models (2505.20444): pairs of time do not rotate.

    https://arxiv.org/abs/2505.20444

    $$ \theta_i = 0 \quad \text{for the pairs of time} $$

    The other pairs rotate as in VideoRoPE. The scheme ``hope`` (2410.21216) is a different one. In
    training the paper draws the spacing of frames, ``delta`` of
    ``posenc_jax.positions.videorope``, for each sample from 0.5, 0.75, 1, 1.25 and 1.5.

    Args:
      head_dim, sections, base, frequencies, rotary_dim, layout: keywords of ``videorope``.
    """
    allocation = _allocation(sections, pairs_of(head_dim, rotary_dim))
    without_time = tuple(axes.STILL if axis == 0 else axis for axis in allocation)
    rope: dict[str, Any] = dict(head_dim=head_dim, base=base, rotary_dim=rotary_dim, layout=layout)
    return RoPE(axes=without_time, frequencies=frequencies, **rope)


def _allocation(sections, pairs) -> tuple[int, ...]:
    return axes.temporal_last(axes.sections_of(pairs, sections, (16, 24, 24)))
