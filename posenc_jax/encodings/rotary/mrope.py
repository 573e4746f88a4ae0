"""M-RoPE: positions of time, row and column, each turning its own channel pairs, or its own heads.

https://arxiv.org/abs/2409.12191, https://arxiv.org/abs/2511.21631,
https://arxiv.org/abs/2510.23095, https://arxiv.org/abs/2510.03230

All are settings of RoPE's axes. Positions are ``[3, B, T]``, from the builders of
``posenc_jax.rotary.positions``; text, ``[B, T]``, has one position on every axis.
"""

from posenc_jax.encodings.rope import RoPE, pairs_of
from posenc_jax.rotary import axes


def mrope(
    *,
    head_dim: int,
    sections: tuple[int, ...] | None = None,
    base: float = 10000.0,
    frequencies=None,
    rotary_dim: int | None = None,
    layout: str = "half",
) -> RoPE:
    """Qwen2-VL's M-RoPE: the fastest pairs turn by time, the next by row, the slowest by column.

    At the published base of 1e6 columns are told apart hardly at all: their fastest pair needs
    35,000 of them for one turn.

    Args:
      sections: channel pairs of time, row and column. Default: in the proportions of (16, 24, 24).
      head_dim, base, frequencies, rotary_dim, layout: as in ``RoPE``.
    """
    pairs = pairs_of(head_dim, rotary_dim)
    sections = axes.shares(pairs, (16, 24, 24)) if sections is None else sections
    return RoPE(
        head_dim=head_dim,
        base=base,
        frequencies=frequencies,
        axes=axes.chunked(axes.check_sections(sections, pairs)),
        rotary_dim=rotary_dim,
        layout=layout,
    )


def i_mrope(
    *,
    head_dim: int,
    sections: tuple[int, ...] | None = None,
    order: tuple[int, ...] = (0, 1, 2),
    base: float = 10000.0,
    frequencies=None,
    rotary_dim: int | None = None,
    layout: str = "half",
) -> RoPE:
    """Interleaved M-RoPE: the axes take turns, so that each has fast pairs and slow ones.

    Qwen3-VL's rule. Its README stretches 256K tokens to 1M by ``frequencies=YaRN(262144, 3.0)``, a
    factor of 3 and not 4, for positions grow more slowly than tokens. The paper named I-MRoPE
    (2510.03230) interleaves too; its order of axes is not known here, nor what it does with the
    pairs left over.

    Args:
      sections: channel pairs of time, row and column. Default: in the proportions of (24, 20, 20),
        the larger being that of the first axis of ``order``.
      order: in which order the axes come in each turn. The first also has the slow tail.
      head_dim, base, frequencies, rotary_dim, layout: as in ``RoPE``; Qwen3-VL's base is 5e6.
    """
    pairs = pairs_of(head_dim, rotary_dim)
    if sections is None:
        published = tuple(24 if axis == order[0] else 20 for axis in range(3))
        sections = axes.shares(pairs, published, first=order[0])
    return RoPE(
        head_dim=head_dim,
        base=base,
        frequencies=frequencies,
        axes=axes.interleaved(axes.check_sections(sections, pairs), tuple(order)),
        rotary_dim=rotary_dim,
        layout=layout,
    )


def mhrope(
    *,
    num_kv_heads: int,
    head_dim: int,
    axis_heads: tuple[int, ...] | None = None,
    base: float = 10000.0,
    frequencies=None,
    rotary_dim: int | None = None,
    layout: str = "half",
) -> RoPE:
    """MHRoPE: every kv head, with its query heads, turns by one axis, over the whole spectrum.

    The heads of the model must be together, or sharded by XLA: under ``shard_map`` nothing says
    which of them a device has.

    Args:
      num_kv_heads: key and value heads of one layer.
      axis_heads: kv heads of time, row and column, in this order; those left over have no
        positions. Default: in the proportions of (2, 3, 3).
      head_dim, base, frequencies, rotary_dim, layout: as in ``RoPE``.
    """
    if axis_heads is None:
        if num_kv_heads < 3:
            raise ValueError(
                f"num_kv_heads={num_kv_heads} are too few for three axes: give axis_heads="
            )
        time, space = max(1, num_kv_heads // 4), max(1, num_kv_heads * 3 // 8)
        axis_heads = time, space, space
    return RoPE(
        head_dim=head_dim,
        base=base,
        frequencies=frequencies,
        axes=axes.by_head(tuple(axis_heads), num_kv_heads, pairs_of(head_dim, rotary_dim)),
        rotary_dim=rotary_dim,
        layout=layout,
    )
