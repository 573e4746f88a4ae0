"""Cuts the rows of tokens that training and evaluation read from a corpus.

A row is a window of one document, or, where documents are packed, a piece of all documents laid end
to end. Batches are a pure function of seed and step: there is no state to save.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from experiments.settings import one_of
from experiments.training.corpus import SPLITS, Corpus, hashes, in_split


@dataclasses.dataclass(frozen=True, eq=False)
class WindowIndex:
    """Numbers all windows of ``length + 1`` tokens that lie within one document for training.

    Attributes:
      corpus, length: as given to :func:`window_index`.
      ends: int64 ``[documents]``, how many windows there are up to the end of each long document.
      shifts: int64 ``[documents]``, from the number of a window to the place of its first token.
      split_tokens: tokens of all documents for training, short ones included.
    """

    corpus: Corpus
    length: int
    ends: np.ndarray
    shifts: np.ndarray
    split_tokens: int

    def at(self, length: int) -> "WindowIndex":
        """Returns the index of windows of another length."""
        return self if length == self.length else window_index(self.corpus, length)


@dataclasses.dataclass(frozen=True, eq=False)
class PackedIndex(WindowIndex):
    """Numbers the tokens of all documents for training, laid end to end and cut into rows.

    A row has ``length`` tokens and its last target. The attributes ``ends`` and ``shifts`` are
    about single tokens instead of windows.
    """

    @property
    def rows(self) -> int:
        """Returns the rows of an epoch; the last one may not be full."""
        return -(-self.split_tokens // self.length)

    def at(self, length: int) -> "PackedIndex":
        return dataclasses.replace(self, length=length)


@dataclasses.dataclass(frozen=True)
class Data:
    """Says how documents become rows for training.

    Attributes:
      packing: "none" cuts each row from one document, so that shorter documents are left out;
        "documents" lays all documents end to end, and no token sees another document.
      restart: whether positions begin at 0 again with each document of a packed row; otherwise they
        go on to the end of the row.
    """

    packing: str = "none"
    restart: bool = True

    def __post_init__(self):
        one_of("data.packing", self.packing, _INDICES)

    def index(self, corpus: Corpus, length: int) -> WindowIndex:
        """Returns the index of the rows of a corpus."""
        return _INDICES[self.packing](corpus, length)


def window_index(corpus: Corpus, length: int) -> WindowIndex:
    """Numbers the windows that :func:`train_batch` draws; it costs a pass over the offsets."""
    documents = _long_documents(corpus, "train", length + 1)
    sizes = np.diff(corpus.offsets)
    counts = sizes[documents] - length
    ends = np.cumsum(counts)
    shifts = corpus.offsets[documents] - (ends - counts)
    split_tokens = int(sizes[in_split(corpus, "train")].sum())
    return WindowIndex(corpus, length, ends, shifts, split_tokens)


def packed_index(corpus: Corpus, length: int) -> PackedIndex:
    """Numbers the rows that :func:`packed_batch` draws; it costs a pass over the offsets."""
    tokens = window_index(corpus, 0)  # a window of one token each
    return PackedIndex(**vars(tokens) | {"length": length})


_INDICES: dict[str, Callable[[Corpus, int], WindowIndex]] = {
    "none": window_index,
    "documents": packed_index,
}


def train_batch(
    index: WindowIndex, batch_size: int, seed: int, step: int, part: int = 0, parts: int = 1
) -> np.ndarray:
    """Returns a part of a batch's rows, int32 ``[batch_size / parts, length + 1]``.

    The whole batch is drawn uniformly over all windows, with replacement, and depends on ``seed``
    and ``step`` alone; its parts, concatenated, are the whole batch. So a run that resumes on
    another number of hosts trains on the same batches.
    """
    # Raw words: NumPy promises that a bit generator's stream stays the same in later versions, but
    # not what Generator.integers makes of it. The modulo's bias is below windows / 2^64.
    words = np.random.Philox(key=np.array([seed, step], np.uint64)).random_raw(batch_size)
    size = batch_size // parts
    windows = (words % np.uint64(index.ends[-1])).astype(np.int64)[part * size : (part + 1) * size]
    documents = np.searchsorted(index.ends, windows, side="right")
    return _cut(index.corpus, windows + index.shifts[documents], index.length + 1)


def packed_batch(
    index: PackedIndex, batch_size: int, seed: int, step: int, part: int = 0, parts: int = 1
) -> dict[str, np.ndarray]:
    """Returns a part of a batch's rows: ``tokens`` and ``segments``.

    Both are int32 ``[batch_size / parts, length + 1]``. Tokens of the same segment are of the same
    document; behind the last document segments are -1. The last token of a row is only a target,
    and begins the next row.

    Rows are drawn without replacement, so that each token is an input once an epoch. The order of
    an epoch depends on ``seed`` and on the number of the epoch alone, and a batch on ``seed`` and
    ``step``, which counts from 1; its parts, concatenated, are the whole batch.
    """
    size, ends = batch_size // parts, index.ends
    first = (step - 1) * batch_size + part * size
    places = (divmod(number, index.rows) for number in range(first, first + size))
    rows_B = np.array([_order(seed, epoch, index.rows)[place] for epoch, place in places])
    numbers_BL = index.length * rows_B[:, None] + np.arange(index.length + 1)
    is_token_BL = numbers_BL < ends[-1]
    numbers_BL = np.minimum(numbers_BL, ends[-1] - 1)
    documents_BL = np.searchsorted(ends, numbers_BL, side="right")
    tokens_BL = index.corpus.tokens[numbers_BL + index.shifts[documents_BL]]
    segments_BL = np.where(is_token_BL, documents_BL - documents_BL[:, :1], -1)
    return {"tokens": _known(index.corpus, tokens_BL), "segments": segments_BL.astype(np.int32)}


@functools.lru_cache(maxsize=2)  # a batch may have rows of two epochs
def _order(seed: int, epoch: int, count: int) -> np.ndarray:
    """Returns the numbers below ``count`` in the order of an epoch."""
    words = np.random.Philox(key=np.array([seed, epoch], np.uint64)).random_raw(count)
    return words.argsort(kind="stable")


def check_batch(index: WindowIndex, batch_size: int) -> None:
    """Raises a ValueError if the training split has fewer tokens than a batch."""
    needed = batch_size * (index.length + 1)
    if index.split_tokens < needed:
        raise ValueError(
            f"the train split of {index.corpus.name!r} is smaller than one batch: it has "
            f"{index.split_tokens} tokens, and batch_size={batch_size} windows of {index.length} "
            f"+ 1 tokens are {needed}; use a smaller batch_size or length, or a larger corpus"
        )


def eval_windows(corpus: Corpus, split: str, *, length: int, count: int) -> np.ndarray:
    """Returns windows to evaluate on, int32 ``[n, length]``, ``n <= count``, always the same.

    Documents of at least ``length`` tokens give one window each, at a pseudo-random place, in a
    pseudo-random order; then, while ``count`` is not reached, each in turn gives another that
    overlaps none before it. A smaller ``count`` gives the first rows of a larger one.
    """
    documents = _long_documents(corpus, split, length)
    order = hashes(len(corpus.splits), "order of evaluation")[documents].argsort()
    shifts = hashes(len(corpus.splits), "place of evaluation")
    starts_by_document = []
    for document in documents[order[:count]]:
        begin, end = corpus.offsets[document], corpus.offsets[document + 1]
        first = int(shifts[document]) % int(end - begin - length + 1)
        grid = np.arange(begin + first % length, end - length + 1, length)
        starts_by_document.append(np.roll(grid, -(first // length))[:count])
    rounds = itertools.zip_longest(*starts_by_document)
    starts = [start for one_each in rounds for start in one_each if start is not None]
    return _cut(corpus, starts[:count], length)


def _long_documents(corpus: Corpus, split: str, size: int) -> np.ndarray:
    """Returns the numbers of documents of ``split`` with at least ``size`` tokens, one or more."""
    is_of_split = in_split(corpus, one_of("split", split, SPLITS))
    if not is_of_split.any():
        counts = ((name, (corpus.splits == n).sum()) for n, name in enumerate(SPLITS))
        there = ", ".join(f"{count} into {name}" for name, count in counts if count)
        raise ValueError(
            f"the {split} split of {corpus.name!r} has no document: a hash of its path or number "
            f"puts each document into one split, here {there}. Give more documents, such as a long "
            "one in several parts"
        )
    sizes = np.where(is_of_split, np.diff(corpus.offsets), 0)
    documents = np.flatnonzero(sizes >= size)
    if not documents.size:
        raise ValueError(
            f"no document in the {split} split of {corpus.name!r} has the {size} tokens that a "
            f"window needs; the longest has {sizes.max()}. Use a smaller length or longer documents"
        )
    return documents


def _cut(corpus: Corpus, starts: ArrayLike, size: int) -> np.ndarray:
    return _known(corpus, corpus.tokens[np.asarray(starts)[:, None] + np.arange(size)])


def _known(corpus: Corpus, rows: np.ndarray) -> np.ndarray:
    """Returns rows as int32, or raises a ValueError if a token is not in the vocabulary."""
    if rows.max() >= corpus.vocab_size:
        raise ValueError(
            f"corpus {corpus.name!r} has token {rows.max()}, but vocab_size={corpus.vocab_size}; "
            "correct vocab_size or tokenise again"
        )
    return np.asarray(rows, np.int32)
