"""Tests the corpus ``packages`` on small archives that take the place of the index's."""

import hashlib
import io
import tarfile

import common
import numpy as np
import pytest

from experiments.training import corpus as corpora
from experiments.training import data
from experiments.training.packages import corpus as packages
from experiments.training.packages.documents import Document, distinct, is_document

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


def package(folder, name, files, split="train", members=()):
    """Writes a source archive with ``files``, a mapping from path to bytes, and pins it."""
    file = f"{name}-1.0.tar.gz"
    with tarfile.open(folder / file, mode="w:gz") as tar:
        infos = [tarfile.TarInfo(f"{name}-1.0/{path}") for path in files]
        for info, content in [*zip(infos, files.values(), strict=True), *members]:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    digest = hashlib.sha256((folder / file).read_bytes()).hexdigest()
    return packages.Package(name, "1.0", file, digest, "MIT", split, code="src", prose="docs")


@pytest.fixture
def two(tmp_path):
    """Returns a package for training, whose archive has a link too, and one for evaluation."""
    (tmp_path / "index").mkdir()
    link = tarfile.TarInfo("trained-1.0/src/b.py")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
    trained = {"src/a.py": code("north"), "docs/b.rst": prose("north", "south")}
    trained |= {"docs/copy.rst": prose("east"), "src/tests/a.py": code("south")}
    heldout = {"src/a.py": code("east"), "docs/b.md": prose("east", "west")}
    return [
        package(tmp_path / "index", "trained", trained, members=[(link, b"")]),
        package(tmp_path / "index", "heldout", heldout, split="test"),
    ]


def test_packages_for_evaluation_and_copies_of_them_are_in_no_training_split(
    two, tmp_path, monkeypatch
):
    documents = packages.collect(two, tmp_path / "index")
    assert {f"{document.package}/{document.path}": split for split, document in documents} == {
        "heldout/docs/b.md": "prose",
        "heldout/src/a.py": "code",
        "trained/docs/b.rst": "train",
        "trained/src/a.py": "train",
    }
    common.refuses("digest", lambda: packages.write(documents, tmp_path / "corpus"))
    splits = np.array([corpora.SPLITS.index(split) for split, _ in documents], np.int8)
    made = corpora.of_documents("packages", [document.text for _, document in documents], splits)
    with monkeypatch.context() as patch:
        patch.setattr(packages, "DIGEST", made.digest)
        packages.write(documents, tmp_path / "corpus")
        corpus = data.load_corpus(f"packages:{tmp_path}/corpus")
    assert isinstance(corpus.tokens, np.memmap) and corpus.digest == made.digest
    texts = np.split(corpus.tokens, corpus.offsets[1:-1])
    assert [text.tobytes() for text in texts] == [document.text for _, document in documents]
    np.testing.assert_array_equal(corpora.in_split(corpus, "test"), splits > 1)
    common.refuses("digest", lambda: data.load_corpus(f"packages:{tmp_path}/corpus"))


def test_of_copies_the_first_remains():
    first, copy, other = prose("a", "b", "c"), prose("b", "c", "d"), prose("c", "d", "e", "f")
    texts = {"first": first, "same": first, "copy": copy, "other": other}
    documents = (Document("package", name, "prose", text) for name, text in texts.items())
    assert [document.path for document in distinct(documents)] == ["first", "other"]


TABLE = b"".join(b"==== ======== =====\nname%d float64 units\n" % n for n in range(40))
GERMAN = "Die Straße zum Dorf war so lang, dass wir vor der Nacht nicht ankamen.\n".encode() * 10


def test_what_is_a_document():
    texts = {
        "prose": (prose("a", "b"), prose("a")[:511], TABLE, GERMAN, prose("a", "b") + b"\xff"),
        "code": (code("a"), b"T = [" + b"10, 20, 30,\n" * 50 + b"]", code("a") + b"x" * 1001),
    }
    for kind, (good, *bad) in texts.items():
        assert is_document(Document("package", "path", kind, good))
        assert not any(is_document(Document("package", "path", kind, text)) for text in bad)
