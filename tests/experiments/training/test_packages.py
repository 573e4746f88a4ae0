"""Tests the corpus ``packages`` on small archives of a local index."""

import hashlib
import io
import re
import tarfile

import common
import numpy as np
import pandas as pd
import pytest

from experiments.training import data
from experiments.training.packages import archives
from experiments.training.packages import corpus as packages
from experiments.training.packages.__main__ import main
from experiments.training.packages.documents import Document, distinct, fault

PROSE = (
    "The road to the village of {0} was so long that we had to rest before it was dark, and when "
    "the sun went down over the hills of {0} there was no one with us but the old man.\n"
)
CODE = "def area_of_{0}(width, height):\n    return width * height  # of a rectangle in {0}\n\n\n"


def prose(*names):
    """Makes a text of English with lines of its own for each of the names."""
    return "".join(PROSE.format(f"{name}{n}") for name in names for n in "abcd").encode()


def code(name):
    return "".join(CODE.format(f"{name}_{n}") for n in "abcdefgh").encode()


class Index:
    """Holds the archives of a local index, and the rows that pin them."""

    def __init__(self, folder):
        self.folder = folder
        self.rows = []

    def add(self, name, files, *, split="train", members=()):
        """Adds a source archive with ``files``, a mapping from path to bytes."""
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w:gz") as tar:
            infos = [tarfile.TarInfo(f"{name}-1.0/{path}") for path in files]
            for info, content in [*zip(infos, files.values(), strict=True), *members]:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
        file = f"{name}-1.0.tar.gz"
        (self.folder / file).write_bytes(stream.getvalue())
        digest = hashlib.sha256(stream.getvalue()).hexdigest()
        self.rows.append(
            packages.Package(name, "1.0", file, digest, "MIT", split, code="src", prose="docs")
        )

    def collect(self):
        with archives.downloads() as download:
            return packages.collect(self.rows, download)


@pytest.fixture
def index(tmp_path, monkeypatch):
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return Index(folder)


@pytest.fixture
def two(index):
    """Returns an index with a package for training and one for evaluation."""
    index.add("trained", {"src/a.py": code("north"), "docs/b.rst": prose("north", "south")})
    index.add(
        "heldout", {"src/a.py": code("east"), "docs/b.md": prose("east", "west")}, split="test"
    )
    return index


@pytest.fixture
def command(two, tmp_path, monkeypatch):
    """Returns the command, whose list is the index of two packages."""
    monkeypatch.setattr(packages, "LIST", tmp_path / "list.csv")
    pd.DataFrame(map(vars, two.rows)).to_csv(packages.LIST, index=False)
    monkeypatch.setattr(packages, "DIGEST", packages.assemble(two.collect()).digest)
    return main


def paths(collection):
    pairs = zip(collection.documents, collection.splits, strict=True)
    return {f"{document.package}/{document.path}": split for document, split in pairs}


def test_packages_for_evaluation_are_in_no_training_split(two):
    assert paths(two.collect()) == {
        "heldout/docs/b.md": "prose",
        "heldout/src/a.py": "code",
        "trained/docs/b.rst": "train",
        "trained/src/a.py": "train",
    }


def test_the_command_makes_what_a_config_names(command, tmp_path):
    assert command(["--out", str(tmp_path / "corpus"), "--datasheet", str(tmp_path / "page")]) == 0
    corpus = data.load_corpus(f"packages:{tmp_path}/corpus")
    assert isinstance(corpus.tokens, np.memmap) and corpus.digest == packages.DIGEST
    documents = np.split(corpus.tokens, corpus.offsets[1:-1])
    for split, texts in {
        "code": [code("east")],
        "prose": [prose("east", "west")],
        "train": [prose("north", "south"), code("north")],
        "test": [prose("east", "west"), code("east")],
    }.items():
        numbers = np.flatnonzero(data.in_split(corpus, split))
        assert [documents[n].tobytes() for n in numbers] == texts
    assert packages.DIGEST in (tmp_path / "page").read_text()


def test_an_archive_with_another_digest_is_refused(command, two, tmp_path, capsys):
    with (two.folder / "trained-1.0.tar.gz").open("ab") as file:
        file.write(b"\0")
    assert command(["--out", str(tmp_path / "corpus")]) == 2
    assert "trained-1.0.tar.gz has SHA-256" in capsys.readouterr().err
    assert not (tmp_path / "corpus").exists()


def test_loading_says_which_command_makes_the_corpus(command, tmp_path, monkeypatch):
    folder = tmp_path / "corpus"
    with pytest.raises(ValueError, match=re.escape(f"packages --out={folder}")):
        data.load_corpus(f"packages:{folder}")
    command(["--out", str(folder)])
    monkeypatch.setattr(packages, "DIGEST", "0" * 64)
    common.refuses("digest", lambda: data.load_corpus(f"packages:{folder}"))


# --- archives


@pytest.mark.parametrize("path", ["../evil.py", "x/../../evil.py", "/evil.py"])
def test_a_path_outside_the_archive_is_refused(index, path):
    index.add("evil", {"src/a.py": code("a")}, members=[(tarfile.TarInfo(path), code("b"))])
    common.refuses(re.escape(repr(path)), lambda: index.collect())


def test_links_are_not_followed(index):
    link = tarfile.TarInfo("links-1.0/src/b.py")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
    index.add("links", {"src/a.py": code("a")}, members=[(link, b"")])
    assert set(paths(index.collect())) == {"links/src/a.py"}


def test_an_archive_that_grows_too_large_is_refused(index, monkeypatch):
    monkeypatch.setattr(archives, "MOST_ARCHIVE_BYTES", 10_000)
    index.add("bomb", {f"data/{n}": bytes(9_000) for n in range(2)})
    common.refuses("10000 bytes", lambda: index.collect())


# --- documents


def test_of_copies_the_first_remains():
    first, copy, other = prose("a", "b", "c"), prose("b", "c", "d"), prose("c", "d", "e", "f")
    texts = {"first": first, "same": first, "copy": copy, "other": other}
    documents = (Document("package", name, "prose", text) for name, text in texts.items())
    remaining, duplicates = distinct(documents)
    assert [d.path for d in remaining] == ["first", "other"]
    assert [d.path for d in duplicates] == ["same", "copy"]


def test_a_training_document_that_copies_an_evaluated_one_is_dropped(index):
    index.add("trained", {"docs/a.rst": prose("north", "south"), "docs/b.rst": prose("east")})
    index.add("heldout", {"docs/c.rst": prose("north", "south", "west")}, split="test")
    collection = index.collect()
    assert paths(collection) == {"heldout/docs/c.rst": "prose", "trained/docs/b.rst": "train"}
    assert collection.dropped == {("trained", "duplicate"): len(prose("north", "south"))}


TABLE = b"".join(b"==== ======== =====\nname%d float64 units\n" % n for n in range(40))
GERMAN = "Die Straße zum Dorf war so lang, dass wir vor der Nacht nicht ankamen.\n".encode() * 10


@pytest.mark.parametrize(
    "kind, text, reason",
    [
        ("prose", prose("a", "b"), None),
        ("prose", prose("a")[:511], "short"),
        ("prose", TABLE, "not prose"),
        ("prose", GERMAN, "not prose"),
        ("prose", prose("a", "b") + b"\xff", "not UTF-8"),
        ("code", code("a"), None),
        ("code", b"TABLE = [" + b"10, 20, 30,\n" * 50 + b"]", "generated"),
        ("code", code("a") + b"x" * 1001, "generated"),
    ],
)
def test_what_is_a_document(kind, text, reason):
    assert fault(kind, text) == reason


# --- the list


def test_the_page_is_about_the_corpus_of_this_version():
    page = (common.ROOT / "docs/data/packages.md").read_text()
    assert f"Digest: `{packages.DIGEST}`" in page
    for package in packages.read_list(packages.LIST):
        assert f"| {package.package} {package.version} | {package.licence} |" in page
