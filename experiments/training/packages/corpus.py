"""Collects the documents of packages into a corpus, which it writes and loads."""

import csv
import dataclasses
import hashlib
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from experiments.training.data import SPLITS, Corpus, of_documents
from experiments.training.host import user_cache
from experiments.training.packages.archives import Archive, read_files
from experiments.training.packages.documents import (
    Document,
    cleaned,
    distinct,
    fault,
    is_skipped,
    kind_of,
)

LIST = Path(__file__).with_name("packages.csv")
# A change of packages.csv or of a rule changes the digest; then write the new one here.
DIGEST = "a4e3e458c4883160a859edd9884d1a8dcef9b85a4d249500f8bbca2b10855391"
ARRAYS = ("tokens", "offsets", "splits")


@dataclasses.dataclass(frozen=True)
class Package(Archive):
    """Says which documents of an archive belong to the corpus.

    Attributes:
      licence: the licence of the documents.
      split: "train", or "test" for a package whose documents are for evaluation.
      code, prose: the folder with documents of this kind, or "" for none.
    """

    licence: str
    split: str
    code: str
    prose: str

    def has(self, path: str) -> bool:
        """Returns whether the file at ``path`` may be a document, by its path."""
        folder = {"code": self.code, "prose": self.prose}.get(kind_of(path))
        inside = path.removeprefix(f"{folder}/")
        return bool(folder) and inside != path and not is_skipped(inside)


@dataclasses.dataclass(frozen=True)
class Collection:
    """Holds the documents of a corpus in order, and the split of each, a name of ``SPLITS``.

    ``dropped`` has the bytes that were left out, by package and reason.
    """

    documents: list[Document]
    splits: list[str]
    dropped: Counter[tuple[str, str]]


def read_list(path: Path) -> list[Package]:
    """Reads the packages of a corpus from a CSV file whose columns are the fields of `Package`."""
    with path.open(newline="") as lines:
        return [Package(**row) for row in csv.DictReader(lines)]


def collect(packages: Iterable[Package], download: Callable[[Archive], bytes]) -> Collection:
    """Chooses the documents of packages; ``download`` returns an archive's bytes."""
    # Packages for evaluation come first: of two duplicates, the one in training is dropped.
    packages = sorted(packages, key=lambda package: package.split == "train")
    split_of = {package.package: package.split for package in packages}
    dropped: Counter[tuple[str, str]] = Counter()
    candidates: list[Document] = []
    for package in packages:
        print(f"{package.package} {package.version}", file=sys.stderr)
        files = read_files(package.file, download(package), package.has)
        for path, data in sorted(files):
            kind, text = kind_of(path), cleaned(data)
            if reason := fault(kind, text):
                dropped[package.package, reason] += len(text)
            else:
                candidates.append(Document(package.package, path, kind, text))
    documents, duplicates = distinct(candidates)
    for document in duplicates:
        dropped[document.package, "duplicate"] += len(document.text)
    splits = []
    for document in documents:
        word = hashlib.sha256(f"{document.package}/{document.path}".encode()).digest()
        is_validation = int.from_bytes(word[:8], "little") % 20 == 0
        part = "validation" if is_validation else "train"
        splits.append(part if split_of[document.package] == "train" else document.kind)
    return Collection(documents, splits, dropped)


def assemble(collection: Collection) -> Corpus:
    """Returns the corpus of a collection."""
    splits = np.array([SPLITS.index(split) for split in collection.splits], np.int8)
    return of_documents("packages", [document.text for document in collection.documents], splits)


def write(collection: Collection, corpus: Corpus, folder: Path) -> None:
    """Writes a corpus to a new ``folder``, whole or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f"{folder.name}.part", dir=folder.parent))
    try:
        for name in ARRAYS:
            np.save(part / f"{name}.npy", getattr(corpus, name))
        with (part / "documents.csv").open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["split", "kind", "bytes", "package", "path"])
            for split, d in zip(collection.splits, collection.documents, strict=True):
                rows.writerow([split, d.kind, len(d.text), d.package, d.path])
        part.chmod(0o755)
        part.rename(folder)
    except BaseException:
        shutil.rmtree(part)
        raise


def load(name: str, folder: str = "") -> Corpus:
    """Loads a corpus that the command wrote, as a memory map; it reads everything once.

    ``name`` is what a config calls the corpus, and "" for ``folder`` means the user's cache. Raises
    a ValueError if there is no corpus in the folder, or another one.
    """
    path = Path(folder).expanduser() if folder else cache()
    command = "python -m experiments.training.packages" + (f" --out={folder}" if folder else "")
    try:
        tokens, offsets, splits = (np.load(path / f"{n}.npy", mmap_mode="r") for n in ARRAYS)
    except (OSError, EOFError, ValueError) as error:
        raise ValueError(
            f"corpus {name!r} is not in {path} ({error}); make it with: {command}"
        ) from error
    corpus = Corpus.of_bytes(name, tokens, offsets, splits)
    if corpus.digest != DIGEST:
        raise ValueError(
            f"corpus {name!r}: {path} has the digest {corpus.digest}, but this version of the code "
            f"is for {DIGEST}; remove that folder, then make it with: {command}"
        )
    return corpus


def cache() -> Path:
    """Returns the folder of the corpus in the user's cache."""
    return user_cache(f"packages-{DIGEST[:8]}")
