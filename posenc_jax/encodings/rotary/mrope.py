r"""M-RoPE rotates some channel pairs (or heads) by time, some by row and some by column.

https://arxiv.org/abs/2409.12191, https://arxiv.org/abs/2511.21631,
https://arxiv.org/abs/2510.23095, https://arxiv.org/abs/2510.03230

$$ q_t^{(i)} \gets e^{\mathrm{i}\, p_{t,a(i)}\, \theta_i} q_t^{(i)} $$

Keys are rotated alike. All schemes here are ``RoPE`` with an allocation a of axes to pairs.
Positions are ``[B, T, 3]``, from the builders in ``posenc_jax.positions``; text, ``[B, T]``, has
the same position on every axis.
"""

from typing import Any

from posenc_jax.checks import count_of
from posenc_jax.encodings.lib import axes
from posenc_jax.encodings.lib.layouts import pairs_of
from posenc_jax.encodings.rotary.frequencies.base import Frequencies
from posenc_jax.encodings.rotary.rope import RoPE


def mrope(
    *,
    head_dim: int,
    sections: tuple[int, ...] | None = None,
    base: float = 10000.0,
    frequencies: Frequencies | None = None,
    rotary_dim: int | None = None,
    layout: str = "half",
) -> RoPE:
    r"""Builds Qwen2-VL's M-RoPE: fast pairs rotate by time, the next by row, slow ones by column.

    https://arxiv.org/abs/2409.12191

    $$ a = (\text{time}, \dots, \text{row}, \dots, \text{column}, \dots) $$

    At the published base of 1e6 columns can hardly be distinguished: their fastest pair turns once
    in 35,000 columns.

    Args:
      sections: channel pairs of time, row and column; by default in proportion to (16, 24, 24).
      head_dim, base, frequencies, rotary_dim, layout: keywords of ``RoPE``.
    """
    pairs = pairs_of(head_dim, rotary_dim)
    allocation = axes.chunked(axes.sections_of(pairs, sections, (16, 24, 24)))
    rope: dict[str, Any] = dict(head_dim=head_dim, base=base, rotary_dim=rotary_dim, layout=layout)
    return RoPE(axes=allocation, frequencies=frequencies, **rope)


def i_mrope(
    *,
    head_dim: int,
    sections: tuple[int, ...] | None = None,
    order: tuple[int, ...] = (0, 1, 2),
    base: float = 10000.0,
    frequencies: Frequencies | None = None,
    rotary_dim: int | None = None,
    layout: str = "half",
) -> RoPE:
    r"""Builds interleaved M-RoPE: pairs alternate between axes, so each has fast and slow pairs.

    https://arxiv.org/abs/2511.21631, https://arxiv.org/abs/2510.03230

    $$ a = (\text{time}, \text{row}, \text{column}, \text{time}, \text{row}, \dots) $$

    The rule is Qwen3-VL's. Its README extends 256K tokens to 1M by
    ``frequencies=YaRNFrequencies(262144, 3.0)``, a factor of 3 and not 4, because positions grow
    more slowly than tokens. The paper named I-MRoPE (2510.03230) interleaves too; the order of its
    axes, and its rule for the pairs left over, could not be verified.

    Args:
      sections: channel pairs of time, row and column; by default in proportion to (24, 20, 20),
        where the first axis of ``order`` has the larger share.
      order: the axes in the order in which they alternate. The first also has the slow tail.
      head_dim, base, frequencies, rotary_dim, layout: keywords of ``RoPE``; Qwen3-VL's base is 5e6.
    """
    pairs = pairs_of(head_dim, rotary_dim)
    order = axes.checked_order(order, 3)
    published = tuple(24 if axis == order[0] else 20 for axis in range(3))
    sections = axes.sections_of(pairs, sections, published, first=order[0])
    allocation = axes.interleaved(sections, order)
    rope: dict[str, Any] = dict(head_dim=head_dim, base=base, rotary_dim=rotary_dim, layout=layout)
    return RoPE(axes=allocation, frequencies=frequencies, **rope)


def mhrope(
    *,
    num_kv_heads: int,
    head_dim: int,
    axis_heads: tuple[int, ...] | None = None,
    base: float = 10000.0,
    frequencies: Frequencies | None = None,
    rotary_dim: int | None = None,
    layout: str = "half",
) -> RoPE:
    r"""Builds MHRoPE: each kv head and its query heads rotate by one axis, with all frequencies.

    https://arxiv.org/abs/2510.23095

    $$ q_t^{(h,i)} \gets e^{\mathrm{i}\, p_{t,a(h)}\, \theta_i} q_t^{(h,i)} $$

    Args:
      num_kv_heads: number of key and value heads in one layer.
      axis_heads: numbers of kv heads of time, row and column; heads left over have no positions.
        By default they are in proportion to (2, 3, 3).
      head_dim, base, frequencies, rotary_dim, layout: keywords of ``RoPE``.
    """
    if axis_heads is None:
        count_of("num_kv_heads", num_kv_heads, 3)  # an axis each
        time, space = max(1, num_kv_heads // 4), max(1, num_kv_heads * 3 // 8)
        axis_heads = time, space, space
    pairs = pairs_of(head_dim, rotary_dim)
    allocation = axes.by_head(axis_heads, num_kv_heads, pairs)
    rope: dict[str, Any] = dict(head_dim=head_dim, base=base, rotary_dim=rotary_dim, layout=layout)
    return RoPE(axes=allocation, frequencies=frequencies, **rope)
