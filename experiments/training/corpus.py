"""Defines a corpus: documents of tokens, each in a split. ``data.py`` loads one by its name."""

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from experiments.training.arrow import MappedTexts
from experiments.training.records import RecordedTokens

# Corpora store the index of a split: add names only at the end.
SPLITS = ("train", "validation", "test", "manual", "code", "prose")

BLOCK = 1 << 20  # tokens that are read at once for a digest


@dataclasses.dataclass(frozen=True, eq=False)  # == of arrays has no truth value
class Corpus:
    """Holds tokenised documents, and the split that each belongs to.

    Attributes:
      name: the string that names the corpus, see ``data.py``.
      tokens: all documents end to end, uint8, uint16 or uint32 ``[tokens]``; may be memory-mapped,
        ``RecordedTokens`` or ``MappedTexts``.
      offsets: int64 ``[N + 1]``; document ``n`` is ``tokens[offsets[n] : offsets[n + 1]]``.
      splits: int8 ``[N]``, an index into ``SPLITS`` for each document.
      vocab_size: token ids are ``0 .. vocab_size - 1``.
      bytes_per_token: mean UTF-8 bytes of a token; 1.0 if tokens are bytes.
      digest: SHA-256 in hex of the documents and their splits. For ``tokens:PATH`` it reads all
        offsets but only 64 evenly spaced blocks of 16384 tokens, or everything if that is less.
    """

    name: str
    tokens: np.ndarray | RecordedTokens | MappedTexts
    offsets: np.ndarray
    splits: np.ndarray
    vocab_size: int
    bytes_per_token: float
    digest: str

    @classmethod
    def of_bytes(cls, name: str, tokens, offsets, splits) -> "Corpus":
        """Returns the corpus of documents whose tokens are bytes."""
        blocks = (tokens[start : start + BLOCK] for start in range(0, len(tokens), BLOCK))
        digest = digest_of("", offsets, splits, blocks)
        return cls(name, tokens, offsets, splits, 256, 1.0, digest)

    @property
    def described(self) -> dict[str, str]:
        """Returns what records of runs say about the corpus."""
        return {"corpus": self.name, "corpus_digest": self.digest}


def in_split(corpus: Corpus, split: str) -> np.ndarray:
    """Returns which documents are in ``split``, bool ``[N]``; "test" has "code" and "prose" too."""
    names = ("test", "code", "prose") if split == "test" else (split,)
    return np.isin(corpus.splits, [SPLITS.index(name) for name in names])


def of_documents(name: str, documents: Iterable[bytes], splits: np.ndarray) -> Corpus:
    """Returns the corpus of documents whose bytes are the tokens; empty ones are left out.

    Documents are read one after the other, and only their bytes are held, end to end.
    """
    whole, counts = bytearray(), []
    for document in documents:
        whole += document
        counts.append(len(document))
    return of_texts(name, np.frombuffer(whole, np.uint8), np.array(counts, np.int64), splits)


def of_texts(name: str, tokens, sizes: np.ndarray, splits: np.ndarray) -> Corpus:
    """Returns the corpus of texts whose bytes lie end to end; empty ones are left out.

    Args:
      name: the string that names the corpus.
      tokens: all bytes, an array or what is read as one.
      sizes: int64 ``[N]``, the bytes of each text.
      splits: int8 ``[N]``, an index into ``SPLITS`` for each text.
    """
    if not sizes.any():
        raise ValueError(f"corpus {name!r}: all {len(sizes)} documents are empty")
    offsets = np.cumsum([0, *sizes[sizes > 0]], dtype=np.int64)
    return Corpus.of_bytes(name, tokens, offsets, splits[sizes > 0])


def tokenised(
    corpus: Corpus, encode: Callable[[str], Sequence[int]], vocab_size: int, least: int = 1
) -> Corpus:
    """Returns a corpus of bytes in the tokens of a model, of ``vocab_size`` token ids.

    Bytes that are no UTF-8 are replaced. Documents of fewer than ``least`` bytes are left out: as a
    token is at least one byte, they could not hold a window of ``least`` tokens. Raises a
    ValueError if the corpus has its own tokens already, or no document of ``least`` bytes.
    """
    if corpus.tokens.dtype != np.uint8:
        raise ValueError(
            f"corpus {corpus.name!r} has tokens already, and this model has its own: "
            "give text, which is stdlib, packages, files:GLOB or hf:NAME"
        )
    sizes = np.diff(corpus.offsets)
    chosen = np.flatnonzero(sizes >= least)
    if not chosen.size:
        raise ValueError(
            f"corpus {corpus.name!r} has no document of {least} bytes, which {least} tokens need "
            f"at least; the longest has {sizes.max()} bytes. Give longer documents"
        )
    starts = corpus.offsets[chosen]
    texts = [
        corpus.tokens[start : start + size].tobytes().decode(errors="replace")
        for start, size in zip(starts, sizes[chosen], strict=True)
    ]
    documents = [np.asarray(encode(text), np.uint32) for text in texts]
    offsets = np.cumsum([0, *map(len, documents)], dtype=np.int64)
    tokens, splits = np.concatenate(documents), corpus.splits[chosen]
    bytes_per_token = float(sizes[chosen].sum() / len(tokens))
    digest = digest_of(f"{vocab_size} {bytes_per_token}", offsets, splits, [tokens])
    return Corpus(corpus.name, tokens, offsets, splits, vocab_size, bytes_per_token, digest)


def word_of(text: bytes) -> int:
    """Returns a hash of a text, below ``2^64``."""
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "little")


def hashes(count: int, purpose: str) -> np.ndarray:
    """Returns one hash for each number below ``count``, the stream of a counter-based generator."""
    return np.random.Philox(key=word_of(purpose.encode())).random_raw(count)


def digest_of(header: str, offsets, splits, blocks: Iterable[np.ndarray]) -> str:
    """Returns the SHA-256 of a header and of arrays, in hex."""
    digest = hashlib.sha256(header.encode())
    for array in (offsets, splits, *blocks):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
