"""Allocates position axes to the channel pairs of the rotary family.

An allocation is a tuple with one axis number for each channel pair, the fastest pair first, or one
such tuple for each kv head. ``STILL`` in place of an axis number means that the pair does not
rotate. Text has one axis and needs no allocation.

Sections are numbers of channel pairs, one for each axis in the order of the position axes: time,
row, column.
"""

import itertools
from collections.abc import Iterable
from typing import Any

import numpy as np

from posenc_jax.checks import check_choice, count_of, counts_of, is_whole

STILL = -1

Allocation = tuple[int, ...] | tuple[tuple[int, ...], ...]


def as_tuples(axes: Any) -> Any:
    """Returns ``axes``, lists or arrays too, as tuples, which ``jax.jit`` can hash and compare."""
    axes = axes.tolist() if hasattr(axes, "tolist") else axes
    return tuple(map(as_tuples, axes)) if isinstance(axes, list | tuple) else axes


def chunked(sections: tuple[int, ...]) -> tuple[int, ...]:
    """Gives each axis one run of pairs, as M-RoPE of Qwen2-VL does (2409.12191).

    Its sections are (16, 24, 24).
    """
    return tuple(axis for axis, count in enumerate(sections) for _ in range(count))


def interleaved(sections: tuple[int, ...], order: tuple[int, ...] | None = None) -> tuple[int, ...]:
    """Alternates the axes, as Qwen3-VL does (2511.21631); its sections are (24, 20, 20).

    In every group of ``len(sections)`` pairs the axes come in ``order``, by default as they are
    numbered. Each axis but the first takes its pair until its section is used up; the first takes
    all other pairs, the slow tail included.
    """
    num_pairs, num_axes = sum(sections), len(sections)
    first, *others = range(num_axes) if order is None else checked_order(order, num_axes)
    allocation = [first] * num_pairs
    for number, axis in enumerate(others, 1):
        for step in range(sections[axis]):
            pair = number + step * num_axes
            if pair >= num_pairs:
                raise ValueError(
                    f"sections={sections} cannot be interleaved: pair {pair} of axis {axis} is "
                    f"past the last of {num_pairs}; give axis {first} a larger section"
                )
            allocation[pair] = axis
    return tuple(allocation)


def checked_order(order: Iterable[int], num_axes: int) -> tuple[int, ...]:
    """Returns an order of axes as a tuple; it must have each of them once."""
    checked = as_tuples(order)
    check_choice(tuple(itertools.permutations(range(num_axes))), order=checked)
    return checked


def temporal_last(sections: tuple[int, ...]) -> tuple[int, ...]:
    """Alternates rows and columns, and gives time the slowest pairs: VideoRoPE (2502.05173)."""
    if len(sections) != 3 or sections[1] != sections[2]:
        raise ValueError(
            f"sections={sections} must be of time, row and column, the last two equal: they "
            "alternate"
        )
    return (1, 2) * sections[1] + (0,) * sections[0]


def by_head(axis_heads: tuple[int, ...], num_kv_heads: int, pairs: int) -> Allocation:
    """Gives all pairs of a kv head to one axis, as MHRoPE does (2510.23095).

    The first heads rotate by axis 0, and heads that are left over do not rotate.
    """
    axis_heads = counts_of("axis_heads", axis_heads, 0, num_kv_heads)
    count = count_of("sum of axis_heads", sum(axis_heads), 0, num_kv_heads)
    still = (STILL,) * (num_kv_heads - count)
    return tuple((axis,) * pairs for axis in chunked(axis_heads) + still)


def sections_of(
    pairs: int, sections: Iterable[int] | None, published: tuple[int, ...], first: int = 0
) -> tuple[int, ...]:
    """Returns ``sections``, which must add up to ``pairs``, as a tuple.

    Where they are None, they have the proportions of the published ones, and axis ``first`` has the
    pairs that are left over.
    """
    if sections is None:
        count_of("head_dim / 2, or rotary_dim / 2,", pairs, len(published))
        shares = [max(1, pairs * share // sum(published)) for share in published]
        shares[first] += pairs - sum(shares)
        return tuple(shares)
    counts = tuple(sections) if np.iterable(sections) else (None,)
    if not all(is_whole(n) and n >= 0 for n in counts) or sum(counts) != pairs:
        raise ValueError(
            f"sections={sections} must be a tuple of whole numbers of channel pairs, {pairs} in "
            f"all: {2 * pairs} rotary channels are {pairs} pairs"
        )
    return tuple(map(int, counts))
