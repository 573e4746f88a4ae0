"""Holds what a study has measured as one tidy table, and shows parts of it as tables of words.

A row of the tidy table is one number:

study, scheme, seed  who was measured; each study says what its seeds change
split, measure, x    what was measured: on which texts or rows, how, and at which length or size
value, unit          the number; inf where training diverged
text                 the number of a text, only where the losses of single texts are compared

``results.csv.gz`` in a workdir, and each file of this kind in docs/data, is such a table.
"""

import dataclasses
import gzip
import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.box import HORIZONTALS
from rich.table import Table as RichTable
from rich.text import Text

from experiments.results.statistics import best_first, number, over_seeds

COLUMNS = ["study", "scheme", "seed", "split", "measure", "x", "value", "unit"]
QUESTION = ["split", "measure", "x"]  # the columns that say what was measured
FILE = "results.csv.gz"
_KEYS = ["study", "scheme", "seed", *QUESTION, "unit", "text"]
_DIGITS = "%.7g"


def tidy(study: str, rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Returns the tidy table of a study; rows that name no split belong to the split "".

    Raises a ValueError if two rows claim the same measurement.
    """
    frame = pd.DataFrame(rows)
    frame = frame.reindex(columns=[*COLUMNS, *frame.columns.intersection(["text"])])
    frame["study"], frame["split"] = study, frame["split"].astype("object").fillna("")
    frame["value"] = frame["value"].astype(float)
    frame["value"] = frame["value"].where(np.isfinite(frame["value"]), np.inf)
    if frame["x"].map(type).nunique() > 1:  # words for some, such as "none"
        frame["x"] = [x if isinstance(x, str) else f"{x:g}" for x in frame["x"]]
    keys = [key for key in _KEYS if key in frame]
    twice = frame[frame.duplicated(keys)]
    if len(twice):
        which = ", ".join(f"{key} {twice.iloc[0][key]}" for key in keys[1:])
        raise ValueError(
            f"two records of {which}: counted twice they would shrink its interval; keep one"
        )
    return frame


def packed(frame: pd.DataFrame) -> bytes:
    """Returns a table as compressed CSV; the same table gives the same bytes."""
    return gzip.compress(frame.to_csv(index=False, float_format=_DIGITS).encode(), mtime=0)


def read(path: str | Path) -> pd.DataFrame:
    """Returns the table in a file, tidy or of comparisons; words may be empty, numbers NaN."""
    numbers = "text", "value", "difference", "margin", "p", "p_corrected"
    return pd.read_csv(path, keep_default_na=False, na_values={key: [""] for key in numbers})


def select(frame: pd.DataFrame, **where: Any) -> pd.DataFrame:
    """Returns the rows whose columns have the given values, or one of several values."""
    for column, wanted in where.items():
        is_several = isinstance(wanted, Collection) and not isinstance(wanted, str)
        frame = frame[frame[column].isin(wanted if is_several else [wanted])]
    return frame


def by_seed(frame: pd.DataFrame) -> pd.DataFrame:
    """Returns a tidy table with one row for all texts, which has their mean."""
    keys = [column for column in COLUMNS if column != "value"]
    return frame.groupby(keys, sort=False)["value"].mean().reset_index()[COLUMNS]


def lowered(frame: pd.DataFrame, before: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Returns by how much losses are lower than others ``before`` them, as another measure.

    Losses of one scheme, seed, split and text belong together, and x is that of ``frame``.
    """
    keys = [key for key in ("scheme", "seed", "split", "text") if key in frame]
    both = frame.merge(before[[*keys, "value"]], on=keys, suffixes=("", "_before"))
    lower = both.pop("value_before") - both["value"]
    return both.assign(value=lower.where(np.isfinite(lower), np.inf), measure=measure)


def means(frame: pd.DataFrame) -> pd.DataFrame:
    """Returns ``scheme, x, mean, margin, seeds`` of rows of one measure, see ``over_seeds``."""
    return over_seeds(by_seed(frame), ["scheme", "x"])


@dataclasses.dataclass(frozen=True)
class Table:
    """Holds a table in words, to be shown on a page, in a terminal and in Markdown.

    Attributes:
      title: what it shows, with the unit.
      cells: the words, by row and column. What stands below the first line of a cell is shown
        smaller.
      caption: how to read it.
      shades: how dark the background of each cell is, from 0 to 1.
      best: the name of the row whose mean is the best one, by column.
    """

    title: str
    cells: pd.DataFrame
    caption: str = ""
    shades: pd.DataFrame | None = None
    best: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def html(self) -> str:
        """Returns the table as HTML."""
        # Rules of CSS name a table of the page by its title, which is the same every time.
        styler = self.cells.style.set_uuid(re.sub(r"\W+", "_", self.title)).format(escape="html")
        for axis in ("index", "columns"):
            styler = styler.format_index(escape="html", axis=axis)
        if self.shades is not None:
            shade = "background: color-mix(in srgb, var(--far) {:.0%}, transparent)".format
            css = self.shades.map(lambda depth: shade(depth) if depth > 0 else "")
            styler = styler.apply(lambda _: css, axis=None)
        return styler.to_html(doctype_html=False, cell_ids=False)

    def rich(self) -> RichTable:
        """Returns the table for a terminal; in a narrow one, words go into several lines."""
        shown = RichTable(
            title=Text(self.title),
            caption=Text(self.caption),
            box=HORIZONTALS,
            collapse_padding=True,
            pad_edge=False,
        )
        shown.add_column(Text(self.cells.index.name or ""), no_wrap=True)
        for column in self.cells.columns:
            shown.add_column(Text(str(column)), justify="right", overflow="fold")
        for name, *words in self.cells.itertuples():
            shown.add_row(Text(str(name)), *(Text(w.replace("\n", " ")) for w in words))
        return shown

    def markdown(self) -> str:
        """Returns the table in Markdown, without title and caption."""
        head = [self.cells.index.name or "", *self.cells.columns]
        is_prose = self.cells.map(len).gt(30).any()
        rule = ["---", *("---" if prose else "---:" for prose in is_prose)]
        rows = [head, rule, *self.cells.itertuples()]
        lines = (" | ".join(str(word).replace("\n", " ") for word in row) for row in rows)
        return "\n".join(f"| {line} |" for line in lines)


def grid(
    frame: pd.DataFrame,
    title: str,
    *,
    is_error: bool = True,
    best_at: Any = None,
    schemes: list[str] | None = None,
    xs: Iterable[Any] | None = None,
    heads: Callable[[Any], str] = "{}".format,
    marks: Mapping[tuple[str, Any], str] | None = None,
    margins: Mapping[tuple[str, Any], float] | None = None,
    caption: str = "",
) -> Table:
    """Returns the means over seeds of one measure, ± half of their 95 % intervals.

    There is a row for each of ``schemes``, by default for all, the one that is best at the x
    ``best_at`` first, by default the last one; and a column for each of ``xs``, with the words of
    ``heads`` above it. ``marks`` and ``margins`` have a sign and another margin for some schemes
    and xs. A cell says how many seeds it has if others have more.
    """
    cells = means(frame)
    columns = list(cells["x"].unique() if xs is None else xs)
    if xs is None and pd.api.types.is_numeric_dtype(cells["x"]):
        columns.sort()
    cells = best_first(cells, columns[-1] if best_at is None else best_at, is_error)
    most, words = cells["seeds"].max(), dict[tuple[str, Any], str]()
    for scheme, x, mean, margin, seeds in cells.itertuples(index=False):
        margin = (margins or {}).get((scheme, x), margin)
        like = max(abs(mean), margin) if math.isfinite(margin) else abs(mean)
        below = [f"±{number(margin, like)}"] if math.isfinite(margin) else []
        below += [f"({seeds} of {most})"] if seeds < most else []
        below.append((marks or {}).get((scheme, x), ""))
        words[scheme, x] = f"{number(mean, like)}\n{' '.join(below)}".rstrip()
    shown = pd.Series(words).unstack(fill_value="-")
    shown = shown.reindex(
        index=schemes or cells["scheme"].unique(), columns=columns, fill_value="-"
    )
    best = {}
    for x, means_at in cells[cells["scheme"].isin(shown.index)].groupby("x"):
        if x in columns and len(means_at) > 1:
            place = means_at["mean"].idxmin() if is_error else means_at["mean"].idxmax()
            best[heads(x)] = means_at["scheme"][place]
    return Table(title, shown.rename(columns=heads).rename_axis("scheme"), caption, best=best)
