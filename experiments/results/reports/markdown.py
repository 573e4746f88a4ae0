"""Writes Markdown: tables, names, and tables of a page anew."""

import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from experiments.results.comparisons import statement


def markdown_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a table in Markdown."""
    head, *lines = (f"| {' | '.join(line)} |\n" for line in (heads, *rows))
    return f"{head}|{'---|' * len(heads)}\n{''.join(lines)}"


def families_below(families: pd.DataFrame) -> str:
    """Says below a table what its marks are about, given rows of ``comparisons.families``."""
    said = statement(families)
    return f"\n{textwrap.fill(said, 115)}\n" if said else ""


def anchor(heading: str) -> str:
    """Returns the anchor of a heading, as GitHub and the site make it."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def names(schemes: Iterable[str]) -> str:
    """Returns the names of schemes as code, or "none" for no scheme."""
    return ", ".join(f"`{scheme}`" for scheme in schemes) or "none"


def written(page: str, tables: Mapping[str, str]) -> str:
    """Returns a page in which the first table below each heading is replaced by the given one.

    Raises a ValueError if the page has no such table.
    """
    # Lines between the heading and the table begin neither a table nor another section. What was
    # compared in a table is said below it.
    table_and_families = r"(?:\|.*\n)+(?:\nFamilies of comparisons(?:.+\n)+)?"
    for heading, table in tables.items():
        before = rf"(\n##+ {re.escape(heading)}\n(?:(?![|#]).*\n)*)"
        place = re.search(before + table_and_families, page)
        if place is None:
            raise ValueError(
                f"the page has no table below {heading!r}; add one, of any content, or correct the "
                "heading in the program that writes the table"
            )
        page = page[: place.end(1)] + table + page[place.end() :]
    return page
