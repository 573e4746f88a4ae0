"""Turns the Markdown that our own commands write into the language of Typst."""

import re
from collections.abc import Collection

_INLINE = re.compile(
    r"(?P<code>`[^`]+`)|(?P<link>!?\[[^\]]*\]\([^)\s]+\))|(?P<bold>\*\*.+?\*\*)|(?P<italic>\*[^*]+\*)"
    r"|(?P<paper>\b\d{4}\.\d{5}\b)"
)
# Cells from this many characters on are broken into lines, in columns as wide as up to so many.
_LONG, _LONGEST = 30, 110
_SPECIAL = re.compile(r"([\\#$*_@<>`~\[\]])")


def inline(text: str, papers: Collection[str]) -> str:
    """Returns a line of Markdown as Typst.

    Args:
      text: words with code, links, bold and italic parts.
      papers: arXiv numbers of the bibliography, which become citations.
    """
    parts, end = [], 0
    for match in _INLINE.finditer(text):
        parts.append(_plain(text[end : match.start()]))
        parts.append(_special(match.lastgroup or "", match[0], papers))
        end = match.end()
    return "".join([*parts, _plain(text[end:])])


def _plain(text: str) -> str:
    """Returns words as Typst, with spaces before signs and units at which no line breaks."""
    return _SPECIAL.sub(r"\\\1", text).replace(" ± ", "~±~").replace(" %", "~%")


def _special(kind: str, text: str, papers: Collection[str]) -> str:
    """Returns a part of a line. What follows a semicolon is text again, whatever it begins with."""
    if kind == "code":
        return f'#raw("{_string(text[1:-1])}");'
    if kind == "bold":
        return f"#strong[{inline(text[2:-2], papers)}];"
    if kind == "italic":
        return f"#emph[{inline(text[1:-1], papers)}];"
    if kind == "paper":
        return _paper(text, papers)
    words, _, address = text.lstrip("!").removeprefix("[").removesuffix(")").partition("](")
    if re.fullmatch(r"\d{4}\.\d{5}", words):
        return _paper(words, papers)
    shown = inline(words, papers)
    return f'#link("{_string(address)}")[{shown}];' if "://" in address else shown


def _paper(number: str, papers: Collection[str]) -> str:
    if number in papers:
        return f'#cite(label("{number}"));'
    return f'#link("https://arxiv.org/abs/{number}")[arXiv:{number}];'


def _string(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def blocks(markdown: str, papers: Collection[str]) -> str:
    """Returns Markdown of tables and paragraphs as Typst."""
    made = []
    for block in re.split(r"\n{2,}", markdown.strip()):
        is_table = block.startswith("|")
        made.append(_table(block, papers) if is_table else inline(" ".join(block.split()), papers))
    return "\n\n".join(made)


def _table(block: str, papers: Collection[str]) -> str:
    """Returns a call of the template's ``results``: widths and sides of columns, and the cells."""
    lines = [line.strip().strip("|").split("|") for line in block.splitlines()]
    head, _, *rows = [[cell.strip() for cell in line] for line in lines]
    widths, sides = [], []
    for column in zip(*rows, strict=True):
        longest = max(map(len, column))
        widths.append("auto" if longest < _LONG else f"{min(longest, _LONGEST)}fr")
        numbers = sum(any(map(str.isdigit, re.sub("`.*`", "", cell))) for cell in column)
        sides.append("right" if longest < _LONG and numbers > len(column) / 2 else "left")
    cells = ", ".join(f"[{inline(cell, papers)}]" for row in [head, *rows] for cell in row)
    return f"#results(({', '.join(widths)}), ({', '.join(sides)}), {cells})"
