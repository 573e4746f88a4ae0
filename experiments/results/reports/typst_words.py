"""Turns the Markdown that our own commands write into the language of Typst."""

import re
from collections.abc import Collection

_PAPER = r"\b\d{4}\.\d{5}\b"
# Code, links and pictures, bold and italic words, and papers.
_MARKED = re.compile(rf"(`[^`]+`|!?\[[^\]]*\]\([^)\s]+\)|\*\*.+?\*\*|\*[^*]+\*|{_PAPER})")
# Cells from this many characters on are broken into lines, in columns as wide as up to so many.
_LONG, _LONGEST = 30, 110
_SPECIAL = re.compile(r"([\\#$*_@<>`~\[\]])")


def inline(text: str, papers: Collection[str]) -> str:
    """Returns a line of Markdown, with code, links, bold and italic parts, as Typst.

    ``papers`` are the arXiv numbers of the bibliography, which become citations.
    """
    parts = enumerate(_MARKED.split(text))
    return "".join(_special(part, papers) if place % 2 else _plain(part) for place, part in parts)


def _plain(text: str) -> str:
    """Returns words as Typst, with spaces before signs and units at which no line breaks."""
    return _SPECIAL.sub(r"\\\1", text).replace(" ± ", "~±~").replace(" %", "~%")


def _special(text: str, papers: Collection[str]) -> str:
    """Returns a marked part, which a semicolon ends whatever the text after it begins with."""
    if text.startswith("`"):
        return f'#raw("{_string(text[1:-1])}");'
    if text.startswith("**"):
        return f"#strong[{inline(text[2:-2], papers)}];"
    if text.startswith("*"):
        return f"#emph[{inline(text[1:-1], papers)}];"
    words, _, address = text.lstrip("!").removeprefix("[").removesuffix(")").partition("](")
    if re.fullmatch(_PAPER, words):
        if words in papers:
            return f'#cite(label("{words}"));'
        return f'#link("https://arxiv.org/abs/{words}")[arXiv:{words}];'
    shown = inline(words, papers)
    return f'#link("{_string(address)}")[{shown}];' if "://" in address else shown


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
