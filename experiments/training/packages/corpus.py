"""Collects the documents of packages into a corpus, which it writes and loads."""

import csv
import dataclasses
import hashlib
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from experiments.training.corpus import SPLITS, Corpus, of_documents
from experiments.training.host import user_cache
from experiments.training.packages.documents import (
    Document,
    cleaned,
    distinct,
    is_document,
    is_skipped,
    kind_of,
)

LIST = Path(__file__).with_name("packages.csv")
# A change of packages.csv or of a rule changes the digest; then write the new one here.
DIGEST = "a4e3e458c4883160a859edd9884d1a8dcef9b85a4d249500f8bbca2b10855391"
ARRAYS = ("tokens", "offsets", "splits")


@dataclasses.dataclass(frozen=True)
class Package:
    """Pins one archive, and says which of its documents belong to the corpus.

    Attributes:
      package, version: its name and its version in the package index.
      file, sha256: the name and the digest of the archive.
      licence: the licence of the documents.
      split: "train", or "test" for a package whose documents are for evaluation.
      code, prose: the folder with documents of this kind, or "" for none.
    """

    package: str
    version: str
    file: str
    sha256: str
    licence: str
    split: str
    code: str
    prose: str

    def has(self, path: str) -> bool:
        """Returns whether the file at ``path`` may be a document, by its path."""
        folder = {"code": self.code, "prose": self.prose}.get(kind_of(path))
        inside = path.removeprefix(f"{folder}/")
        return bool(folder) and inside != path and not is_skipped(inside)


def read_list() -> list[Package]:
    """Returns the packages of the corpus."""
    with LIST.open(newline="") as lines:
        return [Package(**row) for row in csv.DictReader(lines)]


def collect(packages: list[Package], archives: Path) -> list[tuple[str, Document]]:
    """Returns the documents of packages, each with its split; ``archives`` has the files."""
    # Packages for evaluation come first: of two duplicates, the one in training is dropped.
    packages = sorted(packages, key=lambda package: package.split == "train")
    split_of = {package.package: package.split for package in packages}
    candidates = (
        Document(package.package, path, kind_of(path), cleaned(data))
        for package in packages
        for path, data in sorted(_files(package, archives / package.file))
    )
    documents = distinct(document for document in candidates if is_document(document))
    return [(_split(document, split_of[document.package]), document) for document in documents]


def _split(document: Document, split: str) -> str:
    if split == "test":
        return document.kind
    word = hashlib.sha256(f"{document.package}/{document.path}".encode()).digest()
    return "validation" if int.from_bytes(word[:8], "little") % 20 == 0 else "train"


def _files(package: Package, path: Path) -> Iterator[tuple[str, bytes]]:
    """Yields path and content of the files of an archive that may be documents.

    A source archive consists of one folder, and paths begin within it.
    """
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as zipped:
            yield from (
                (name, zipped.read(name)) for name in zipped.namelist() if package.has(name)
            )
        return
    with tarfile.open(path) as tar:
        for member in tar:
            name = member.name.partition("/")[2]
            if member.isreg() and package.has(name):
                stream = tar.extractfile(member)
                assert stream is not None
                yield name, stream.read()


def write(documents: list[tuple[str, Document]], folder: Path) -> str:
    """Writes a corpus to a new ``folder``, whole or not at all, and returns its digest.

    Raises a ValueError if it is not the corpus of this version of the code.
    """
    splits = np.array([SPLITS.index(split) for split, _ in documents], np.int8)
    corpus = of_documents("packages", [document.text for _, document in documents], splits)
    if corpus.digest != DIGEST:
        raise ValueError(
            f"the corpus has the digest {corpus.digest}, but this version of the code is for "
            f"{DIGEST}: packages.csv or a rule was changed; if that was meant, put the new digest "
            f"into {Path(__file__).name}"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f"{folder.name}.part", dir=folder.parent))
    try:
        for name in ARRAYS:
            np.save(part / f"{name}.npy", getattr(corpus, name))
        with (part / "documents.csv").open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["split", "kind", "bytes", "package", "path"])
            rows.writerows([s, d.kind, len(d.text), d.package, d.path] for s, d in documents)
        part.chmod(0o755)
        part.rename(folder)
    except BaseException:
        shutil.rmtree(part)
        raise
    return corpus.digest


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
