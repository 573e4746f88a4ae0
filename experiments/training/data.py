"""Loads corpora by their names.

A corpus is named by one string:

- ``stdlib``: the sources of the running interpreter's standard library, bytes as tokens. Its split
  "manual" is the language manual in ``pydoc_data/topics.py``: English prose, another domain.
- ``files:GLOB``: local files (``**`` descends), bytes as tokens.
- ``tokens:PATH``: a folder of token ids, which :func:`write_tokens` wrote to be read as a memory
  map, or :func:`write_records` to be read through grain.
- ``hf:NAME`` or ``hf:NAME:SPLIT``: the column "text" of a Hugging Face data set, bytes as tokens.
- ``packages`` or ``packages:FOLDER``: source code and English prose that
  :mod:`experiments.training.packages` makes, bytes as tokens. Its test split has the parts "code"
  and "prose", which are splits too.

Each document, except of ``packages``, goes to train (80 %), validation (10 %) or test (10 %) by a
hash of its relative path or its number, so it stays in its split on another machine, or when
documents are added.
"""

import glob
import itertools
import json
import math
import os
import sysconfig
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from experiments import imported
from experiments.results.record import of_all
from experiments.training import records
from experiments.training.arrow import MappedTexts
from experiments.training.corpus import (
    SPLITS,
    Corpus,
    digest_of,
    hashes,
    of_documents,
    of_texts,
    word_of,
)
from experiments.training.packages.corpus import load as load_packages
from posenc_jax.files import read_json
from posenc_jax.registry import suggest

KINDS = ("stdlib", "packages", "packages:FOLDER", "files:GLOB", "tokens:PATH", "hf:NAME[:SPLIT]")

SAMPLE_BLOCKS, SAMPLE_BLOCK = 64, 1 << 14


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
        return load_packages(name, rest)
    loaders = {"files": _load_files, "tokens": _load_tokens, "hf": _load_hugging_face}
    if kind in loaders and rest:
        return loaders[kind](name, rest)
    kinds = {known.partition(":")[0] for known in KINDS}
    raise ValueError(
        f"corpus {name!r} is unknown{suggest(kind, kinds)}; the forms are {', '.join(KINDS)}"
    )


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
    _check_meta(vocab_size, bytes_per_token)
    dtype = _token_type(vocab_size)
    arrays = [_ids(document, vocab_size).astype(dtype) for document in documents]
    tokens = np.concatenate([np.zeros(0, dtype), *arrays])
    folder = _emptied(folder)
    np.save(folder / "tokens.npy", tokens)
    offsets = np.cumsum([0, *map(len, arrays)], dtype=np.int64)
    _finish(folder, offsets, vocab_size, bytes_per_token)


def write_records(
    folder: str | os.PathLike,
    documents: Iterable[Sequence[int]],
    *,
    vocab_size: int,
    bytes_per_token: float,
) -> None:
    """Writes the same corpus as :func:`write_tokens`, but holds no more than one document.

    The folder gets ``tokens.array_record`` instead of ``tokens.npy``. Raises a ValueError as
    :func:`write_tokens` does, or if grain is not installed.
    """
    _check_meta(vocab_size, bytes_per_token)
    folder = _emptied(folder)
    arrays = (_ids(document, vocab_size) for document in documents)
    offsets = records.write(folder / "tokens.array_record", arrays, _token_type(vocab_size))
    _finish(folder, offsets, vocab_size, bytes_per_token)


def _emptied(folder) -> Path:
    """Returns a folder without the corpus that it may have held."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("meta.json", "offsets.npy", "tokens.npy", "tokens.array_record"):
        (folder / name).unlink(missing_ok=True)
    return folder


def _finish(folder, offsets, vocab_size, bytes_per_token):
    """Writes the rest of a corpus, whose presence says that its tokens are whole."""
    if not offsets[-1]:
        raise ValueError("documents must hold at least one token")
    meta = {"vocab_size": int(vocab_size), "bytes_per_token": float(bytes_per_token)}
    np.save(folder / "offsets.npy", offsets)
    (folder / "meta.json").write_text(json.dumps(meta) + "\n")


def _token_type(vocab_size: int) -> np.dtype:
    return np.dtype(np.uint16 if vocab_size <= 1 << 16 else np.uint32)


def _ids(document, vocab_size) -> np.ndarray:
    ids = np.asarray(document)
    if ids.size and (ids.dtype.kind not in "iu" or ids.min() < 0 or ids.max() >= vocab_size):
        raise ValueError(f"documents must hold integers in 0 .. {vocab_size - 1}")
    return ids


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
    splits = _splits(np.array([word_of(os.fsencode(path)) for path in relatives], np.uint64))
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
    texts = MappedTexts(rows.data.column("text"))
    return of_texts(name, texts, texts.sizes, _splits(hashes(len(rows), "split")))


def _load_tokens(name: str, path: str) -> Corpus:
    folder = Path(path).expanduser()
    recorded = folder / "tokens.array_record"
    try:
        offsets = np.load(folder / "offsets.npy")
        meta = read_json(folder / "meta.json")
        vocab_size, bytes_per_token = meta["vocab_size"], meta["bytes_per_token"]
        _check_meta(vocab_size, bytes_per_token)
        tokens: np.ndarray | records.RecordedTokens
        if recorded.exists():
            tokens = records.RecordedTokens(recorded, _token_type(vocab_size))
        else:
            tokens = np.load(folder / "tokens.npy", mmap_mode="r")
        _check_arrays(tokens, offsets)
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"corpus {name!r}: {type(error).__name__}: {error}. The folder must hold what "
            "experiments.training.data.write_tokens or write_records writes"
        ) from error
    splits = _splits(hashes(len(offsets) - 1, "split"))
    if len(tokens) > SAMPLE_BLOCKS * SAMPLE_BLOCK:
        starts = np.linspace(0, len(tokens) - SAMPLE_BLOCK, SAMPLE_BLOCKS).astype(np.int64)
        blocks = [tokens[start : start + SAMPLE_BLOCK] for start in starts]
    else:
        blocks = [tokens[:]]
    size = float(bytes_per_token)
    digest = digest_of(f"{vocab_size} {size}", offsets, splits, blocks)
    return Corpus(name, tokens, offsets, splits, vocab_size, size, digest)


def _check_arrays(tokens, offsets):
    """Raises a ValueError for arrays that ``write_tokens`` would not have written."""
    if tokens.ndim != 1 or tokens.dtype not in (np.uint16, np.uint32):
        raise ValueError(
            f"tokens.npy must be 1-D uint16 or uint32, not {tokens.dtype} of shape {tokens.shape}"
        )
    ends = offsets[[0, -1]].tolist() if offsets.ndim == 1 and offsets.size else []
    if offsets.dtype != np.int64 or ends != [0, len(tokens)] or (np.diff(offsets) < 0).any():
        raise ValueError(f"offsets.npy must be 1-D int64 that rise from 0 to {len(tokens)} tokens")


def _check_meta(vocab_size, bytes_per_token):
    if not isinstance(vocab_size, int) or not 1 <= vocab_size <= 1 << 31:
        raise ValueError(f"vocab_size={vocab_size!r} must be an integer from 1 to 2^31")
    if not isinstance(bytes_per_token, int | float) or not 0 < bytes_per_token < math.inf:
        raise ValueError(f"bytes_per_token={bytes_per_token!r} must be a finite number above 0")


def _splits(words: np.ndarray) -> np.ndarray:
    """Returns the split of each document by its hash."""
    return np.array([0] * 8 + [1, 2], np.int8)[words % np.uint64(10)]
