"""Reads the papers in ``references.bib``."""

import re
from functools import cache
from pathlib import Path

from pybtex.database import Entry, parse_file
from pybtex.richtext import Text

BIB = Path(__file__).parents[1] / "references.bib"
_ARXIV = re.compile(r"\d{4}\.\d{5}")


@cache
def papers() -> dict[str, Entry]:
    """Returns all papers by their arXiv numbers."""
    return dict(parse_file(str(BIB)).entries)


def numbers(text: str) -> list[str]:
    """Returns the arXiv numbers in a text, each once."""
    return list(dict.fromkeys(_ARXIV.findall(text)))


def citation(number: str) -> str:
    """Returns a paper as MyST: authors, title, year and a link."""
    entry = papers()[number]
    people = [
        _plain(" ".join([*p.first_names, *p.middle_names, *p.prelast_names, *p.last_names]))
        for p in entry.persons["author"]
    ]
    people = ["others" if name == "others" else name for name in people]
    listed = people[0] if len(people) == 1 else f"{', '.join(people[:-1])} and {people[-1]}"
    return (
        f"{listed}. *{_plain(entry.fields['title'])}*. {entry.fields['year']}. "
        f"[arXiv:{number}](https://arxiv.org/abs/{number})"
    )


def bibtex(number: str) -> str:
    """Returns a paper as BibTeX, without our comments."""
    entry = papers()[number]
    fields = {key: value for key, value in entry.fields.items() if key != "comment"}
    lines = [f"@misc{{{number},"]
    people = " and ".join(str(person) for person in entry.persons["author"])
    lines += [f"  {key} = {{{value}}}," for key, value in {"author": people, **fields}.items()]
    return "\n".join([*lines, "}"])


def _plain(latex: str) -> str:
    return str(Text.from_latex(latex)).replace("*", r"\*")
