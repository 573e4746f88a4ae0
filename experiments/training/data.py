"""Loads corpora: documents of tokens, each in a split.

A corpus is named by one string:

- ``stdlib``: the sources of the running interpreter's standard library, bytes as tokens. Its split
  "manual" is the language manual in ``pydoc_data/topics.py``: English prose, another domain.
- ``files:GLOB``: local files (``**`` descends), bytes as tokens.
- ``tokens:PATH``: a folder of token ids written by :func:`write_tokens`, read as a memory map.
- ``hf:NAME`` or ``hf:NAME:SPLIT``: the column "text" of a Hugging Face data set, bytes as tokens.
- ``packages`` or ``packages:FOLDER``: source code and English prose that
  :mod:`experiments.training.packages` makes, bytes as tokens. Its test split has the parts "code"
  and "prose", which are splits too.

Each document, except of ``packages``, goes to train (80 %), validation (10 %) or test (10 %) by a
hash of its relative path or its number, so it stays in its split on another machine, or when
documents are added.
"""

import dataclasses
import glob
import hashlib
import itertools
import json
import math
import os
import sysconfig
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from experiments import imported
from experiments.results.record import of_all
from posenc_jax.registry import suggest

# Corpora store the index of a split: add names only at the end.
SPLITS = ("train", "validation", "test", "manual", "code", "prose")
KINDS = ("stdlib", "packages", "packages:FOLDER", "files:GLOB", "tokens:PATH", "hf:NAME[:SPLIT]")

SAMPLE_BLOCKS, SAMPLE_BLOCK = 64, 1 << 14


@dataclasses.dataclass(frozen=True, eq=False)  # == of arrays has no truth value
class Corpus:
    """Holds tokenised documents, and the split that each belongs to.

    Attributes:
      name: the string that names the corpus, as above.
      tokens: all documents end to end, uint8, uint16 or uint32 ``[tokens]``; may be memory-mapped.
      offsets: int64 ``[N + 1]``; document ``n`` is ``tokens[offsets[n] : offsets[n + 1]]``.
      splits: int8 ``[N]``, an index into ``SPLITS`` for each document.
      vocab_size: token ids are ``0 .. vocab_size - 1``.
      bytes_per_token: mean UTF-8 bytes of a token; 1.0 if tokens are bytes.
      digest: SHA-256 in hex of the documents and their splits. For ``tokens:PATH`` it reads all
        offsets but only 64 evenly spaced blocks of 16384 tokens, or everything if that is less.
    """

    name: str
    tokens: np.ndarray
    offsets: np.ndarray
    splits: np.ndarray
    vocab_size: int
    bytes_per_token: float
    digest: str

    @classmethod
    def of_bytes(cls, name: str, tokens, offsets, splits) -> "Corpus":
        """Returns the corpus of documents whose tokens are bytes."""
        digest = _digest("", offsets, splits, [tokens])
        return cls(name, tokens, offsets, splits, 256, 1.0, digest)

    @property
    def described(self) -> dict[str, str]:
        """Returns what records of runs say about the corpus."""
        return {"corpus": self.name, "corpus_digest": self.digest}


def load_corpus(name: str) -> Corpus:
    """Loads the corpus called ``name``, one of the kinds at the top of this file.

    Raises a ValueError if the kind is unknown, nothing is found, a file cannot be read or is
    malformed, ``datasets`` is not installed, or the processes of the job have other documents.
    """
    corpus = _load(name)
    digests = of_all(corpus.digest)
    for process, digest in enumerate(digests):
        if digest != digests[0]:
            raise ValueError(
                f"corpus {name!r} is not the same in all processes of the job: its digest is "
                f"{digests[0][:12]} in process 0 and {digest[:12]} in process {process}; give "
                "every host the same files"
            )
    return corpus


def _load(name: str) -> Corpus:
    kind, _, rest = name.partition(":")
    if name == "stdlib":
        return _load_stdlib()
    if kind == "packages" and (rest or name == kind):
        from experiments.training.packages.corpus import load

        return load(name, rest)
    loaders = {"files": _load_files, "tokens": _load_tokens, "hf": _load_hugging_face}
    if kind in loaders and rest:
        return loaders[kind](name, rest)
    kinds = {known.partition(":")[0] for known in KINDS}
    raise ValueError(
        f"corpus {name!r} is unknown{suggest(kind, kinds)}; the forms are {', '.join(KINDS)}"
    )


def in_split(corpus: Corpus, split: str) -> np.ndarray:
    """Returns which documents are in ``split``, bool ``[N]``; "test" has "code" and "prose" too."""
    names = ("test", "code", "prose") if split == "test" else (split,)
    return np.isin(corpus.splits, [SPLITS.index(name) for name in names])


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
    digest = _digest(f"{vocab_size} {bytes_per_token}", offsets, splits, [tokens])
    return Corpus(corpus.name, tokens, offsets, splits, vocab_size, bytes_per_token, digest)


def write_tokens(
    folder: str | os.PathLike,
    documents: Iterable[Sequence[int]],
    *,
    vocab_size: int,
    bytes_per_token: float,
) -> None:
    """Writes ``documents``, each a 1-D sequence of token ids, as the corpus ``tokens:FOLDER``.

    Ids are ``0 .. vocab_size - 1``; ``bytes_per_token`` is the UTF-8 bytes of the text divided by
    its tokens. The folder gets ``tokens.npy`` (uint16 if the ids fit, else uint32), ``offsets.npy``
    and ``meta.json``. Raises a ValueError for no tokens, or an id that is no integer or outside the
    vocabulary.
    """
    arrays = [np.asarray(document) for document in documents]
    whole = np.concatenate([array for array in arrays if array.size] or [np.zeros(0, int)])
    is_known = whole.size and whole.dtype.kind in "iu" and whole.min() >= 0
    if not is_known or whole.max() >= vocab_size:
        raise ValueError(f"documents must hold integers in 0 .. {vocab_size - 1}, at least one")
    tokens = whole.astype(np.uint16 if vocab_size <= 1 << 16 else np.uint32)
    offsets = np.cumsum([0, *map(len, arrays)], dtype=np.int64)
    meta = {"vocab_size": int(vocab_size), "bytes_per_token": float(bytes_per_token)}
    _check_folder(tokens, offsets, **meta)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "tokens.npy", tokens)
    np.save(folder / "offsets.npy", offsets)
    (folder / "meta.json").write_text(json.dumps(meta) + "\n")


def _load_stdlib() -> Corpus:
    root = Path(sysconfig.get_paths()["stdlib"])
    foreign = {"site-packages", "dist-packages", "__pycache__"}
    paths = (path.relative_to(root) for path in root.rglob("*.py") if not path.is_dir())
    relatives = [path.as_posix() for path in paths if foreign.isdisjoint(path.parts)]
    return _from_files("stdlib", root, relatives, manual="pydoc_data/topics.py")


def _load_files(name: str, pattern: str) -> Corpus:
    pattern = os.path.expanduser(pattern)  # a shell leaves "~" alone within an argument
    if os.path.isdir(pattern):
        raise ValueError(f"corpus {name!r} is a folder; give its files, such as {name}/**/*.txt")
    # Splits hash the path below the fixed folder, so that a folder keeps its splits when moved.
    parts = Path(pattern).parts[:-1]
    root = Path(*itertools.takewhile(lambda part: not glob.has_magic(part), parts))
    # A broken link is kept, so that it raises an error instead of losing a document silently.
    paths = {path for path in glob.glob(pattern, recursive=True) if not os.path.isdir(path)}
    return _from_files(name, root, [Path(os.path.relpath(p, root)).as_posix() for p in paths])


def _from_files(name: str, root: Path, relatives: list[str], manual: str = "") -> Corpus:
    if not relatives:
        raise ValueError(f"corpus {name!r}: no files found; check the path, and quote the glob")
    relatives = sorted(relatives)
    documents = []
    for relative in relatives:
        path = root / relative
        if path.exists() and not path.is_file():  # a device may have no end
            raise ValueError(f"corpus {name!r}: {path} is no file; name files alone")
        try:
            documents.append(path.read_bytes())
        except OSError as error:
            raise ValueError(
                f"corpus {name!r}: cannot read {path} ({error.strerror}); make it readable "
                "or remove it"
            ) from error
    splits = _splits(np.array([_word(os.fsencode(path)) for path in relatives], np.uint64))
    splits[[relative == manual for relative in relatives]] = SPLITS.index("manual")
    return of_documents(name, documents, splits)


def _load_hugging_face(name: str, rest: str) -> Corpus:
    datasets = imported("datasets", "data", f"corpus {name!r}")
    path, _, split = rest.partition(":")  # the first colon: a split may be "train[:1%]"
    rows = datasets.load_dataset(path, split=split or "train")
    if "text" not in rows.column_names:
        raise ValueError(
            f"corpus {name!r} has columns {rows.column_names} but no 'text'; rename one to 'text', "
            "save the data as files and use files:GLOB"
        )
    documents = [(text or "").encode() for text in rows["text"]]
    return of_documents(name, documents, _splits(hashes(len(documents), "split")))


def of_documents(name: str, documents: list[bytes], splits: np.ndarray) -> Corpus:
    """Returns the corpus of documents whose bytes are the tokens; empty ones are left out."""
    sizes = np.array([len(document) for document in documents], np.int64)
    if not sizes.any():
        raise ValueError(f"corpus {name!r}: all {len(sizes)} documents are empty")
    offsets, splits = np.cumsum([0, *sizes[sizes > 0]], dtype=np.int64), splits[sizes > 0]
    return Corpus.of_bytes(name, np.frombuffer(b"".join(documents), np.uint8), offsets, splits)


def _load_tokens(name: str, path: str) -> Corpus:
    folder = Path(path).expanduser()
    try:
        tokens = np.load(folder / "tokens.npy", mmap_mode="r")
        offsets = np.load(folder / "offsets.npy")
        meta = json.loads((folder / "meta.json").read_text())
        vocab_size, bytes_per_token = meta["vocab_size"], meta["bytes_per_token"]
        _check_folder(tokens, offsets, vocab_size, bytes_per_token)
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"corpus {name!r}: {type(error).__name__}: {error}. The folder must hold tokens.npy, "
            "offsets.npy and meta.json as experiments.training.data.write_tokens writes them"
        ) from error
    splits = _splits(hashes(len(offsets) - 1, "split"))
    blocks = [tokens]
    if len(tokens) > SAMPLE_BLOCKS * SAMPLE_BLOCK:
        starts = np.linspace(0, len(tokens) - SAMPLE_BLOCK, SAMPLE_BLOCKS).astype(np.int64)
        blocks = [tokens[start : start + SAMPLE_BLOCK] for start in starts]
    size = float(bytes_per_token)
    digest = _digest(f"{vocab_size} {size}", offsets, splits, blocks)
    return Corpus(name, tokens, offsets, splits, vocab_size, size, digest)


def _check_folder(tokens, offsets, vocab_size, bytes_per_token):
    """Raises a ValueError for what ``write_tokens`` would not have written."""
    if tokens.ndim != 1 or tokens.dtype not in (np.uint16, np.uint32):
        raise ValueError(
            f"tokens.npy must be 1-D uint16 or uint32, not {tokens.dtype} of shape {tokens.shape}"
        )
    ends = offsets[[0, -1]].tolist() if offsets.ndim == 1 and offsets.size else []
    if offsets.dtype != np.int64 or ends != [0, len(tokens)] or (np.diff(offsets) < 0).any():
        raise ValueError(f"offsets.npy must be 1-D int64 that rise from 0 to {len(tokens)} tokens")
    if not isinstance(vocab_size, int) or not 1 <= vocab_size <= 1 << 31:
        raise ValueError(f"vocab_size={vocab_size!r} must be an integer from 1 to 2^31")
    if not isinstance(bytes_per_token, int | float) or not 0 < bytes_per_token < math.inf:
        raise ValueError(f"bytes_per_token={bytes_per_token!r} must be a finite number above 0")


def _word(text: bytes) -> int:
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "little")


def hashes(count: int, purpose: str) -> np.ndarray:
    """Returns one hash for each number below ``count``, the stream of a counter-based generator."""
    return np.random.Philox(key=_word(purpose.encode())).random_raw(count)


def _splits(words: np.ndarray) -> np.ndarray:
    """Returns the split of each document by its hash."""
    return np.array([0] * 8 + [1, 2], np.int8)[words % np.uint64(10)]


def _digest(header: str, offsets, splits, blocks: Iterable[np.ndarray]) -> str:
    digest = hashlib.sha256(header.encode())
    for array in (offsets, splits, *blocks):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
