"""Keeps the tokens of a corpus in an ArrayRecord file, which grain reads.

A memory map reads one page after the other. The records of an ArrayRecord file are compressed, and
grain reads all that a batch needs at once, in threads. That is meant for files on a network; it was
not timed there. A record is found by its number, so batches are pure functions of seed and step.
"""

import os
from collections.abc import Iterable

import numpy as np

from experiments import imported

SIZE = 1 << 12  # tokens of a record


class RecordedTokens:
    """Reads tokens by a slice or by an array of places, as a one-dimensional array does.

    Args:
      path: the file that :func:`write` made.
      dtype: the type of its tokens.

    Raises a ValueError if grain is not installed or the file is none.
    """

    ndim = 1

    def __init__(self, path: str | os.PathLike, dtype: np.dtype):
        grain = imported("grain", "grain", f"the corpus in {path}")
        self._source = grain.sources.ArrayRecordDataSource(os.fspath(path))
        self.dtype = dtype
        last = len(self._source) - 1
        self.shape = (SIZE * last + self._read([last])[0].size,)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, places: slice | np.ndarray) -> np.ndarray:
        if isinstance(places, slice):
            places = np.arange(*places.indices(len(self)))
        numbers, rows = np.unique(places // SIZE, return_inverse=True)
        tokens = np.zeros((numbers.size, SIZE), self.dtype)
        for row, record in zip(tokens, self._read(numbers.tolist()), strict=True):
            row[: record.size] = record  # the last record may be shorter
        return tokens[rows.reshape(places.shape), places % SIZE]

    def _read(self, numbers: list[int]) -> list[np.ndarray]:
        return [np.frombuffer(record, self.dtype) for record in self._source.__getitems__(numbers)]


def write(path: str | os.PathLike, documents: Iterable[np.ndarray], dtype: np.dtype) -> np.ndarray:
    """Writes documents of token ids end to end, and returns their offsets, int64 ``[N + 1]``.

    Documents are read one after the other, and no more than one is held. Raises a ValueError if
    grain is not installed.
    """
    imported("grain", "grain", f"writing {path}")
    from array_record.python.array_record_module import ArrayRecordWriter  # which grain installs

    sizes = [0]
    rest = np.zeros(0, dtype)
    writer = ArrayRecordWriter(os.fspath(path), "group_size:1")
    for document in documents:
        sizes.append(document.size)
        rest = np.concatenate([rest, document.astype(dtype)])
        whole = rest.size - rest.size % SIZE
        for record in rest[:whole].reshape(-1, SIZE):
            writer.write(record.tobytes())
        rest = rest[whole:]
    if rest.size:
        writer.write(rest.tobytes())
    writer.close()
    return np.cumsum(sizes, dtype=np.int64)
