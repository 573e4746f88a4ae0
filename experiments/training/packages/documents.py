"""Chooses the documents of a corpus: which files of a package are source code or English prose.

The rules are simple, so that they can be stated:

- A file is one document: ``.py`` is code; ``.rst``, ``.md`` and ``.txt`` are prose.
- Tests, bundled copies of other packages, change logs and translations are left out by their path.
- A document is UTF-8 of at least 512 bytes. Line ends become LF.
- Code has at most one digit in eight characters, and no line of over 1,000 characters. Other files
  hold tables or are generated.
- At least 30 in 100 words of prose are among 100 that are frequent in English. Reference lists,
  tables, markup and other languages have fewer.
- A document is a duplicate if at least half of its text, in lines of at least 20 characters, stands
  in documents before it.
"""

import dataclasses
import hashlib
import re
from collections.abc import Iterable
from pathlib import PurePosixPath

LEAST_BYTES = 512
MOST_LINE = 1000
MOST_DIGITS = 1 / 8
LEAST_FREQUENT = 0.3
LEAST_LINE = 20
MOST_SHARED = 0.5

_SUFFIXES = {".py": "code", ".rst": "prose", ".md": "prose", ".txt": "prose"}
# Folders and files of tests, copies of other packages, translations and change logs.
_SKIPPED = re.compile(
    r"(^|/)(tests?|testing|testsuite|_?vendor(ed)?|extern(als?)?|locale|languages|migrations)(/|$)"
    r"|(^|/)(test_|conftest)|_test\.py$"
    r"|(^|[/_-])(changes?|changelog|releases?|relnotes|news|whats_?new|history)([/._-]|$)",
    re.IGNORECASE,
)
_FREQUENT = frozenset(
    b"the of and to a in is that for it as was with be by on not he his are this or from at which"
    b" but have an had they you were their one all we can her has there been if more when will"
    b" would who so no she other its may these what them than some him time into only do such my"
    b" new out also up our said must about then could each first any your like should between"
    b" where over because how two most after before through many same while both well even just"
    b" very does".split()
)


@dataclasses.dataclass(frozen=True)
class Document:
    """Holds one text in UTF-8, "code" or "prose", and its path within a package's archive."""

    package: str
    path: str
    kind: str
    text: bytes


def kind_of(path: str) -> str:
    """Returns the kind of the file at ``path``, or "" where it is neither code nor prose."""
    return _SUFFIXES.get(PurePosixPath(path).suffix, "")


def is_skipped(path: str) -> bool:
    """Returns whether a file is a test, a copy, a translation or a change log, by its path."""
    return _SKIPPED.search(path) is not None


def cleaned(data: bytes) -> bytes:
    """Returns a text without the mark of its byte order, and with LF as the end of its lines."""
    return data.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n")


def is_document(candidate: Document) -> bool:
    """Returns whether a file is long enough, is text, and has what its kind must have."""
    text = candidate.text
    if len(text) < LEAST_BYTES:
        return False
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    if candidate.kind == "code":
        digits = len(re.findall(rb"[0-9]", text))
        return digits <= MOST_DIGITS * len(text) and max(map(len, text.split(b"\n"))) <= MOST_LINE
    words = re.findall(rb"[a-z]+", text.lower())
    frequent = sum(word in _FREQUENT for word in words)
    return bool(words) and frequent >= LEAST_FREQUENT * len(words)


def distinct(documents: Iterable[Document]) -> list[Document]:
    """Returns ``documents`` without duplicates."""
    lines: set[bytes] = set()
    digests: set[bytes] = set()
    remaining = []
    for document in documents:
        digest = hashlib.sha256(document.text).digest()
        of_document = _long_lines(document.text)
        if digest not in digests and _shared(of_document, lines) < MOST_SHARED:
            digests.add(digest)
            lines |= of_document
            remaining.append(document)
    return remaining


def _long_lines(text: bytes) -> set[bytes]:
    """Returns the different lines of ``text`` that are long enough to be compared."""
    stripped = (line.strip() for line in text.split(b"\n"))
    return {line for line in stripped if len(line) >= LEAST_LINE}


def _shared(lines: set[bytes], others: set[bytes]) -> float:
    """Returns the share of ``lines``, by their bytes, that stands in ``others``."""
    total = sum(map(len, lines))
    return sum(len(line) for line in lines if line in others) / total if total else 0.0
