"""Reads the docstrings of schemes, which have one form.

A docstring begins with a sentence. Its source may follow, a line of addresses or the name of the
code that has the scheme, then equations in TeX, each a paragraph between two ``$$``, then prose,
and at the end the sections ``Args:`` and ``Attributes:``.
"""

import dataclasses
import inspect
import re
import sys
from collections import Counter
from typing import Any

from posenc_jax import REGISTRY, Encoding
from posenc_jax.registry import lookup

# A section ends where a line is not indented; an entry may go on in lines that are indented more.
_SECTION = re.compile(r"^([A-Z]\w*(?: attributes)?):\n((?:(?: .*)?(?:\n|\Z))*)", re.MULTILINE)
_ENTRY = re.compile(r"^  ([\w*][\w*, ]*): ", re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class Docstring:
    """Holds the parts of a docstring.

    Attributes:
      sentence: its first paragraph.
      source: addresses or names of where the scheme comes from, or "".
      equations: its equations in TeX, without ``$$``.
      prose: all other paragraphs before the sections.
      arguments: what the sections ``Args`` and ``Attributes`` say of each name.
    """

    sentence: str
    source: str
    equations: list[str]
    prose: list[str]
    arguments: dict[str, str]


def parse(text: str) -> Docstring:
    """Returns the parts of a docstring that ``inspect.getdoc`` has dedented."""
    arguments: dict[str, str] = {}
    for section, content in _SECTION.findall(text):
        if section in ("Args", "Attributes"):
            _, *parts = _ENTRY.split(content)
            for names, said in zip(parts[::2], parts[1::2], strict=True):
                arguments |= {name.strip(): " ".join(said.split()) for name in names.split(",")}
    sentence, *rest = re.split(r"\n\s*\n", _SECTION.sub("", text).strip())
    source = ""
    if rest and (rest[0].startswith("http") or (rest[1:] and _is_equation(rest[1]))):
        source = "" if _is_equation(rest[0]) else " ".join(rest.pop(0).split())
    equations = [part.strip("$").strip() for part in rest if _is_equation(part)]
    prose = [part for part in rest if not _is_equation(part)]
    return Docstring(" ".join(sentence.split()), source, equations, prose, arguments)


def of_scheme(name: str) -> list[Docstring]:
    """Returns the docstrings of a scheme, from the general to the special.

    They belong to its module and to its class or function. A module that
    has several schemes describes what they share, so its sentence is left out.
    """
    build: Any = lookup(name)
    where = REGISTRY[name].partition(":")[0]
    parts = parse(inspect.getdoc(build) or "")
    if build is Encoding:
        return [parts]
    of_module = parse(inspect.getdoc(sys.modules[where]) or "")
    modules = Counter(target.partition(":")[0] for target in REGISTRY.values())
    if modules[where] > 1:
        of_module = dataclasses.replace(of_module, sentence="")
    return [of_module, parts]


def _is_equation(paragraph: str) -> bool:
    return paragraph.startswith("$$")
