"""Makes the tables of docs/ in Markdown, from the tidy tables in docs/data.

A page has a block for each table, and cog writes what the block prints below it:

    <!-- [[[cog from experiments.results import pages; print(pages.rung("c_l256_t20")) ]]] -->
    <!-- [[[end]]] -->

    python -m cogapp -rP README.md docs/*.md

``kept`` makes the data again, and a test checks that the tables are those of the data.
"""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.results import ladder, lengths, panels, table
from experiments.results.comparisons import margins, marks
from experiments.results.table import Table, grid, select

DATA = Path(__file__).parents[2] / "docs/data"
# The schemes of the atlas that docs/results.md shows.
ATLAS = (
    "rope_windowed transformer_xl cable kerple_power fox dape grape_a swin_v2 kerple_log sandwich "
    "alibi rnope_swa t5 rerope fire nope yarn ntk pi rope sinusoidal learned"
)


@functools.cache
def read(name: str) -> pd.DataFrame:
    """Returns the results that docs/data keeps under a name, gains over the own window included."""
    frame = table.read(DATA / f"{name}.csv.gz")
    is_text = {"last", "windowed"}.issubset(frame["measure"])
    return pd.concat([frame, lengths.gains(frame)]) if is_text and name != "ladder" else frame


@functools.cache
def compared(name: str) -> pd.DataFrame:
    """Returns the comparisons that docs/data keeps under a name."""
    return table.read(DATA / f"{name}_comparisons.csv.gz")


def markdown(shown: Table) -> str:
    """Returns a table in Markdown, with the names of its rows as code."""
    cells = shown.cells.rename(index="`{}`".format)
    return Table(shown.title, cells.rename_axis(shown.cells.index.name)).markdown()


def columns(
    name: str,
    heads: Mapping[str, Mapping[str, Any]],
    schemes: str = "",
    best_at: str = "",
    is_error: bool = True,
) -> str:
    """Returns a table whose columns show any rows of the results of a name.

    ``heads`` has for the head of each column what its rows have in some columns of the tidy table.
    ▲ and ▼ are the verdicts of the comparisons. ``schemes`` are the rows, by default all, the one
    that is best at the column ``best_at`` first.
    """
    frame, verdicts = read(name), compared(name)
    rows = pd.concat(select(frame, **where).assign(x=head) for head, where in heads.items())
    told = pd.concat(select(verdicts, **where).assign(x=head) for head, where in heads.items())
    shown = grid(
        rows,
        name,
        is_error=is_error,
        best_at=best_at or None,
        schemes=schemes.split() or None,
        xs=heads,
        marks=marks(told),
        margins=margins(select(told, measure="gain")),
    )
    return markdown(shown)


def losses(name: str, schemes: str = "", split: str = "test", study: str = "extrapolation") -> str:
    """Returns the losses of the last tokens by multiple of the trained length, and windowed."""
    of = {"study": study, "split": split}
    xs = sorted(select(read(name), measure="last", **of)["x"].unique())
    heads = {f"{x:g}x": of | {"measure": "last", "x": x} for x in xs}
    return columns(name, heads | {"windowed": of | {"measure": "windowed", "x": 1}}, schemes)


def gains(name: str, heads: str, schemes: str = "") -> str:
    """Returns gains from more context; ``heads`` are as "test 2x, manual 2x"."""
    pairs = [head.split() for head in heads.split(", ")]
    of = {
        f"{split} {x}": {"split": split, "measure": "gain", "x": float(x[:-1])}
        for split, x in pairs
    }
    return columns(name, of, schemes, is_error=False)


def rung(name: str) -> str:
    """Returns the losses of all schemes of one rung of the ladder."""
    of = {"study": name}
    shown = ladder.rung_table(select(read("ladder"), **of), select(compared("ladder"), **of))
    return markdown(shown)


def rungs(measure: str) -> str:
    """Returns the "trained" or the "beyond" loss on all rungs of the ladder."""
    shown = ladder.rungs_table(read("ladder"), compared("ladder"), measure)
    return Table(shown.title, shown.cells.rename_axis("rung")).markdown()


def longer(name: str, longer_name: str) -> str:
    """Returns the losses of one rung in texts as long as those another one was trained on."""
    return markdown(ladder.longer_table(read("ladder"), name, longer_name))


def drawn(name: str, heads: Mapping[str, tuple[str, Any]], is_error: bool = False) -> str:
    """Returns a study of drawn examples; ``heads`` has the split and the x of each column."""
    measure = {"split": "", "measure": ["accuracy", "error in frame widths"]}
    of = {head: measure | {"split": split, "x": x} for head, (split, x) in heads.items()}
    return columns(name, of, is_error=is_error)


def solved() -> str:
    """Returns how many seeds of each scheme of the atlas have solved each task."""
    return markdown(panels.solved_table(select(read("atlas"), study="tasks")))


@functools.cache
def verdicts() -> pd.DataFrame:
    """Returns the verdicts on published claims, see ``ledger.tested``."""
    return pd.read_csv(DATA / "claims_verdicts.csv.gz", keep_default_na=False)


def claims() -> str:
    """Returns the verdict on each published claim."""
    heads = {"paper": "paper", "made_at": "made at", "claim_verdict": "here"}
    heads |= {"claim_after_correction": "after correction"}
    words = verdicts().drop_duplicates("claim").set_index("claim_says")[list(heads)]
    return Table("", words.rename(columns=heads).rename_axis("claim")).markdown()


def copied() -> str:
    """Returns how well models of the ladder copy, by scheme and rung, a number for each seed."""
    models = pd.read_csv(DATA / "copied.csv").sort_values("seed")
    models["shown"] = (models["copied"].round(2) + 0.0).map("{:.2f}".format)  # no "-0.00"
    cells = models.groupby(["scheme", "rung"])["shown"].agg(", ".join).unstack(fill_value="-")
    best = models.groupby(["rung", "scheme"])["copied"].mean()["c_l256_t20"]
    order = best.sort_values(ascending=False).index
    return markdown(Table("", cells.reindex([*order, *cells.index.difference(order)])))
