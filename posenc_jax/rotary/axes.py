"""The second dial of the rotary family: which position axis turns which channel pair.

An allocation is a tuple with one axis number for each channel pair, the fastest pair first. Text
has one axis and needs none.
"""


def chunked(sections: tuple[int, ...]) -> tuple[int, ...]:
    """Consecutive runs of pairs: M-RoPE of Qwen2-VL (2409.12191), e.g. sections (16, 24, 24)."""
    return tuple(axis for axis, count in enumerate(sections) for _ in range(count))


def interleaved(sections: tuple[int, ...]) -> tuple[int, ...]:
    """Axes taking turns: Qwen3-VL (2511.21631), e.g. sections (24, 20, 20) for time, row, column.

    Axis a > 0 takes every ``len(sections)``-th pair from pair a on until its section is used up;
    axis 0 takes what is left, the slow tail included.
    """
    num_pairs, num_axes = sum(sections), len(sections)
    allocation = [0] * num_pairs
    for axis in range(1, num_axes):
        for turn in range(sections[axis]):
            pair = axis + turn * num_axes
            if pair >= num_pairs:
                raise ValueError(
                    f"sections={sections} cannot be interleaved: pair {pair} of axis {axis} is "
                    f"past the last of {num_pairs}; give axis 0 a larger section"
                )
            allocation[pair] = axis
    return tuple(allocation)
