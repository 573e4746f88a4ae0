"""Tests the corpus ``packages`` on small archives that take the place of the index's."""

import hashlib
import io
import re
import shutil
import tarfile
import types

import common
import numpy as np
import pytest

from experiments.training import corpus as corpora
from experiments.training import data
from experiments.training.packages import __main__ as command
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


class Index:
    """Stands in for ``PyPISimple``: serves the archives of a folder."""

    def __init__(self, address):
        self.folder = address

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def get_project_page(self, name):
        files = [types.SimpleNamespace(filename=path.name) for path in self.folder.glob(f"{name}*")]
        return types.SimpleNamespace(packages=files)

    def download_package(self, file, path):
        shutil.copy(self.folder / file.filename, path)


@pytest.fixture
def run(two, tmp_path, monkeypatch):
    """Returns the command, whose list and whose index are of two packages."""
    simple = types.SimpleNamespace(PyPISimple=Index, PYPI_SIMPLE_ENDPOINT=tmp_path / "index")
    monkeypatch.delenv("PIP_INDEX_URL", raising=False)
    monkeypatch.setattr(command, "imported", lambda *_: simple)
    monkeypatch.setattr(packages, "read_list", lambda: two)
    documents = packages.collect(two, tmp_path / "index")
    splits = np.array([corpora.SPLITS.index(split) for split, _ in documents], np.int8)
    made = corpora.of_documents("packages", [document.text for _, document in documents], splits)
    monkeypatch.setattr(packages, "DIGEST", made.digest)
    return command.main


def test_packages_for_evaluation_and_copies_of_them_are_in_no_training_split(two, tmp_path):
    documents = packages.collect(two, tmp_path / "index")
    assert {f"{document.package}/{document.path}": split for split, document in documents} == {
        "heldout/docs/b.md": "prose",
        "heldout/src/a.py": "code",
        "trained/docs/b.rst": "train",
        "trained/src/a.py": "train",
    }


def test_the_command_makes_what_a_config_names(run, tmp_path):
    assert run(["--out", str(tmp_path / "corpus")]) == 0
    corpus = data.load_corpus(f"packages:{tmp_path}/corpus")
    assert isinstance(corpus.tokens, np.memmap) and corpus.digest == packages.DIGEST
    documents = np.split(corpus.tokens, corpus.offsets[1:-1])
    for split, texts in {
        "code": [code("east")],
        "prose": [prose("east", "west")],
        "train": [prose("north", "south"), code("north")],
        "test": [prose("east", "west"), code("east")],
    }.items():
        numbers = np.flatnonzero(corpora.in_split(corpus, split))
        assert [documents[n].tobytes() for n in numbers] == texts


def test_other_archives_and_other_corpora_are_refused(run, two, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "corpus"
    with pytest.raises(ValueError, match=re.escape(f"packages --out={folder}")):
        data.load_corpus(f"packages:{folder}")
    assert run(["--out", str(folder)]) == 0
    with monkeypatch.context() as patch:
        patch.setattr(packages, "DIGEST", "0" * 64)
        common.refuses("digest", lambda: data.load_corpus(f"packages:{folder}"))
        assert run(["--out", str(tmp_path / "other")]) == 2
    with (tmp_path / "index" / "trained-1.0.tar.gz").open("ab") as file:
        file.write(b"\0")
    assert run(["--out", str(tmp_path / "other")]) == 2
    assert "trained-1.0.tar.gz has SHA-256" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


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


def test_the_page_is_about_the_corpus_of_this_version():
    page = (common.ROOT / "docs/data/packages.md").read_text()
    assert f"Digest: `{packages.DIGEST}`" in page
    for one in packages.read_list():
        assert f"| {one.package} {one.version} | {one.licence} |" in page
