"""Reads texts from the Arrow files of a data set, which ``datasets`` maps into memory.

In such a file the UTF-8 bytes of a column lie end to end, so they are a corpus of bytes already:
nothing is copied but the bytes that a batch needs, and chunks that have nulls.
"""

from typing import Any

import numpy as np


class MappedTexts:
    """Reads the bytes of a column of texts, as one array of uint8 does.

    Args:
      column: a ``pyarrow.ChunkedArray`` of strings and nulls.

    Attributes:
      sizes: int64 ``[N]``, the bytes of each text; 0 where there is none.
    """

    ndim, dtype = 1, np.dtype(np.uint8)

    def __init__(self, column: Any):
        chunks = [_bytes_and_sizes(chunk) for chunk in column.chunks]
        self._pieces = [piece for piece, _ in chunks]
        self.sizes = np.concatenate([np.zeros(0, np.int64), *(sizes for _, sizes in chunks)])
        self._starts = np.cumsum([0, *map(len, self._pieces)], dtype=np.int64)
        self.shape = (int(self._starts[-1]),)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, places: slice | np.ndarray) -> np.ndarray:
        if isinstance(places, slice):
            return self._slice(*places.indices(len(self))[:2])
        numbers = np.searchsorted(self._starts, places, side="right") - 1
        tokens = np.zeros(places.shape, self.dtype)
        for number in np.unique(numbers):
            here = numbers == number
            tokens[here] = self._pieces[number][places[here] - self._starts[number]]
        return tokens

    def _slice(self, begin: int, end: int) -> np.ndarray:
        first = np.searchsorted(self._starts, begin, side="right") - 1
        parts = [np.zeros(0, self.dtype)]
        for number in range(first, np.searchsorted(self._starts, end)):
            start = self._starts[number]
            parts.append(self._pieces[number][max(begin - start, 0) : end - start])
        return np.concatenate(parts)


def _bytes_and_sizes(chunk: Any) -> tuple[np.ndarray, np.ndarray]:
    """Returns the bytes of a chunk's texts, and the size of each text."""
    array = chunk.fill_null("").cast("large_binary")  # its offsets are int64; bytes stay in place
    _, offsets, data = array.buffers()
    ends = np.frombuffer(offsets, np.int64)[array.offset : array.offset + len(array) + 1]
    whole = np.frombuffer(data or b"", np.uint8)
    return whole[ends[0] : ends[-1]], np.diff(ends)
