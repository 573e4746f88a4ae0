"""Makes the tables of docs/ in Markdown, from the tidy tables in docs/data.

A page has a block for each table, and cog writes what the block prints below it:

    <!-- [[[cog from experiments.results import pages; pages.show("ladder_main") ]]] -->
    <!-- [[[end]]] -->

    python -m cogapp -rP README.md docs/*.md

``studies/kept.py`` makes the data again. A test checks that the tables of pages are those of the
data, and that numbers in sentences are, see ``cell``.
"""

import functools
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.results import extensions, ladder, lengths, onset, table
from experiments.results.comparisons import compared as compare
from experiments.results.comparisons import margins, marks
from experiments.results.statistics import Cell, mean_and_margin
from experiments.results.table import Table, grid, select

DATA = Path(__file__).parents[2] / "docs/data"


# Columns of tables: a head, and what the rows have in columns of the tidy table.
Heads = Mapping[str, Mapping[str, Any]]

_ATLAS = """rope_windowed transformer_xl cable kerple_power fox dape grape_a swin_v2 kerple_log
sandwich alibi rnope_swa dual_base t5 rerope fire nope yarn ntk pi rope sinusoidal learned"""
# The splits and the xs of columns.
_PANELS: dict[str, dict[str, tuple[str, Any]]] = {
    "images": {"28": ("pasted", 28), "rescaled 42": ("rescaled", 42)}
    | {"rescaled 84": ("rescaled", 84), "pasted 42": ("pasted", 42), "pasted 84": ("pasted", 84)},
    "story": {"1x": ("pace", "1x"), "4x": ("pace", "4x"), "backwards": ("warp", "reverse")}
    | {"with pauses": ("warp", "pause"), "random": ("warp", "random")}
    | {f"from time {t}": ("later in the story", f"{t}") for t in (64, 256)},
}
# The steps of tuning and the multiples of columns.
_EXTENDED = {
    "extension_small": ((0, 2), (0, 8), (0, 32), (100, 2), (100, 8), (100, 32)),
    "extension_smollm2": ((0, 1), (0, 2), (0, 4)),
}


@functools.cache
def read(name: str) -> pd.DataFrame:
    """Returns the results that docs/data keeps under a name."""
    if name in _EXTENDED:
        records = pd.read_csv(DATA / f"{name}.csv").to_dict("records")
        return extensions.tidy(name, records)
    return table.read(DATA / f"{name}.csv.gz")


@functools.cache
def compared(name: str) -> pd.DataFrame:
    """Returns the comparisons that docs/data keeps under a name."""
    return table.read(DATA / f"{name}_comparisons.csv.gz")


@functools.cache
def verdicts() -> pd.DataFrame:
    """Returns the verdicts on published claims, see ``ledger.tested``."""
    return pd.read_csv(DATA / "claims_verdicts.csv.gz", keep_default_na=False)


def show(name: str) -> None:
    """Prints a table of ``TABLES``, for cog."""
    print(TABLES[name]())


def cell(name: str, query: str) -> Cell:
    """Returns a mean over seeds, its margin and the number of seeds, of the results of a name.

    A query such as "scheme=rope, measure=last, x=4" chooses rows, whose splits count alike. After
    "minus" follows what other rows have instead: "scheme=rope, x=4 minus x=1" is a difference.
    """

    def by_seed(words: dict[str, str]) -> pd.Series:
        frame = read(name).astype(dict.fromkeys(words, "str") | {"x": "float"})
        where: dict[str, Any] = words | ({"x": float(words["x"])} if "x" in words else {})
        return select(frame, **where).groupby("seed")["value"].mean()

    parts = [dict(re.findall(r"(\w+)=([^,]*[^, ])", part)) for part in query.split(" minus ")]
    values, *others = (by_seed(parts[0] | part) for part in parts)
    return mean_and_margin(values - others[0] if others else values)


def markdown(shown: Table) -> str:
    """Returns a table in Markdown, with the names of its rows as code."""
    cells = shown.cells.rename(index="`{}`".format)
    return Table(shown.title, cells.rename_axis(shown.cells.index.name)).markdown()


def columns(
    frame: pd.DataFrame, verdicts: pd.DataFrame, heads: Heads, schemes: str = "", **more: Any
) -> str:
    """Returns a table whose columns show any rows, with the verdicts of comparisons.

    ``schemes`` are the rows, by default all; ``more`` is for ``table.grid``.
    """
    rows, told = (
        pd.concat(select(of, **where).assign(x=head) for head, where in heads.items())
        for of in (frame, verdicts)
    )
    more |= {"marks": marks(told), "margins": margins(select(told, measure="gain"))}
    return markdown(grid(rows, "", schemes=schemes.split() or None, xs=heads, **more))


def atlas_text() -> str:
    """Returns the losses of some schemes of the atlas by length."""
    of: dict[str, Any] = {"study": "language", "split": "test"}
    heads = {f"{x}x": of | {"measure": "last", "x": x} for x in (1, 2, 4, 8, 16)}
    heads |= {"windowed": of | {"measure": "windowed", "x": 1}}
    return columns(read("atlas"), compared("atlas"), heads, _ATLAS)


def phases() -> str:
    """Returns the losses of ways to train on longer texts within one run."""
    heads: dict[str, dict[str, Any]] = {
        f"{split}, {x}x": {"split": split, "measure": "last", "x": x}
        for split in ("test", "manual")
        for x in (1, 4, 8)
    }
    shown = "rope_windowed longer_yarn longer_ntk long longer wider rope"
    return columns(read("phases"), compared("phases"), heads, shown)


def ladder_main() -> str:
    """Returns the losses of all schemes of the main rung of the ladder."""
    of = {"study": "c_l256_t20"}
    shown = ladder.rung_table(select(read("ladder"), **of), select(compared("ladder"), **of))
    return markdown(shown)


def ladder_rungs() -> str:
    """Returns the losses at the trained length on all rungs of the ladder."""
    shown = ladder.rungs_table(read("ladder"), compared("ladder"), "trained")
    return Table(shown.title, shown.cells.rename_axis("rung")).markdown()


def claims() -> str:
    """Returns the verdict on each published claim."""
    heads = {"paper": "paper", "made_at": "made at", "claim_verdict": "here"}
    heads |= {"claim_after_correction": "after correction"}
    words = verdicts().drop_duplicates("claim").set_index("claim_says")[list(heads)]
    return Table("", words.rename(columns=heads).rename_axis("claim")).markdown()


# The rungs of the ladder on which some scheme has begun to copy.
_COPIED = {
    "c_l256_t20": "0.46M parameters, 256 tokens",
    "d7_l1024_t20": "0.46M parameters, 1,024 tokens",
    "d8_w256_t20": "1.67M parameters, 256 tokens",
}


def copied() -> str:
    """Returns how well models of the ladder copy, by scheme, a number for each seed."""
    models = pd.read_csv(DATA / "copied.csv").sort_values("seed")
    models["shown"] = models["copied"].round(2).map("{:z.2f}".format)
    cells = models.groupby(["scheme", "rung"])["shown"].agg(", ".join).unstack(fill_value="-")
    best = models[models["rung"] == "c_l256_t20"].groupby("scheme")["copied"].mean()
    order = best.sort_values(ascending=False).index
    return markdown(Table("", cells.loc[order, list(_COPIED)].rename(columns=_COPIED)))


def panel(name: str) -> str:
    """Returns the results of an experiment on drawn examples."""
    measure = "error in frame widths" if name == "story" else "accuracy"
    heads = {
        head: {"split": split, "measure": measure, "x": x}
        for head, (split, x) in _PANELS[name].items()
    }
    return columns(read(name), compared(name), heads, is_error=name == "story")


def extended(name: str) -> str:
    """Returns the losses of methods that make a model longer, after steps of tuning."""
    losses = select(read(name), measure="last")
    verdicts = compare(losses.assign(family=losses["split"], is_error=True), lengths.WINDOWED)
    heads: dict[str, dict[str, Any]] = {
        f"{steps} steps, {x}x": {"split": f"{steps} steps", "measure": "last", "x": x}
        for steps, x in _EXTENDED[name]
    }
    right = select(read(name), measure="short accuracy")
    plain = select(right, scheme="rope", split="0 steps").set_index("seed")["value"]
    kept = right.assign(value=right["value"] / right["seed"].map(plain), measure="kept")
    heads |= {
        f"{split}, kept": {"split": split, "measure": "kept"} for split in kept["split"].unique()
    }
    losses = pd.concat([losses, kept])
    target = {"extension_small": "100 steps, 8x", "extension_smollm2": "0 steps, 2x"}
    return columns(losses, verdicts, heads, best_at=target[name])


def learned() -> str:
    """Returns the percentages of rows that models have right at twice the trained length.

    A model has learned a task with 90 % of the rows of the trained length. A cell has a number for
    each model that has, where most of a scheme's have.
    """
    right = select(read("learned"), measure="exact match").query("~split.str.endswith('_sparse')")
    right = right.assign(multiple=right["x"] // right.groupby("study")["x"].transform("min"))
    by_model = right.pivot(
        index=["study", "scheme", "seed"], columns="multiple", values="value"
    ).reset_index()
    is_learned = by_model[1] >= 0.9
    most = is_learned.groupby([by_model["study"], by_model["scheme"]]).transform("mean") > 0.5
    words = by_model[is_learned & most].assign(shown=lambda t: (100 * t[2]).map("{:.0f}".format))
    cells = words.groupby(["study", "scheme"])["shown"].agg(" ".join).unstack(fill_value="")
    return markdown(Table("", cells.rename_axis("task")))


def copying() -> str:
    """Returns how many runs of the study of copying copy so far, by scheme and depth."""
    return markdown(onset.summary(pd.read_csv(DATA / "copying.csv.gz")))


# A scheme, and the same with keys and values that are mixed with those before.
_HELPED = {"rope": "kv_shift", "alibi": "alibi_shift", "fox": "fox_shift", "nope": "nope_smear"}


def helped() -> str:
    """Returns the losses on unseen code of schemes alone and with KV shift, at a rate of 0.006.

    There is a loss for each seed, with the copying score behind it.
    """
    runs = onset.of_models(pd.read_csv(DATA / "copying.csv.gz")).dropna(subset="loss")
    runs = select(runs, rate=0.006, depth=2).sort_values("seed")
    shown = runs["loss"].map("{:.3f}".format) + runs["copied"].map(" ({:z.2f})".format)
    by_scheme = shown.groupby(runs["scheme"]).agg(", ".join)
    columns = {"alone": list(_HELPED), "with KV shift": list(_HELPED.values())}
    cells = {head: by_scheme.reindex(of).fillna("-").tolist() for head, of in columns.items()}
    return markdown(Table("", pd.DataFrame(cells, index=pd.Index(list(_HELPED), name="scheme"))))


def census() -> str:
    """Returns how the published models of each year encode positions, see ``studies/census.py``."""
    models = pd.read_csv(DATA / "census.csv")
    rows = {
        "models": pd.Series(1, models.index),
        "rotate": models["rotated"] > 0,
        "have learned positions": models["positions"] == "learned",
        "have no positions at all": models["positions"] == "none",
        "rotate in some layers alone": models["rotated"].between(0, 1, inclusive="neither"),
        "have a window in some layers": models["windowed"].between(0, 1, inclusive="neither"),
        "have a window in all layers": models["windowed"] == 1,
        "are extended (YaRN, ...)": models["extension"].notna(),
    }
    cells = pd.DataFrame(rows).groupby(models["year"]).sum().T.astype(str)
    cells.loc["median base"] = models.groupby("year")["base"].median().map("{:,.0f}".format)
    cells.loc["largest base"] = models.groupby("year")["base"].max().map("{:,.0f}".format)
    return Table("", cells.replace("nan", "-").rename_axis("")).markdown()


TABLES: dict[str, Callable[[], str]] = {
    "census": census,
    "copying": copying,
    "copying_helped": helped,
    "learned": learned,
    "atlas_text": atlas_text,
    "phases": phases,
    "claims": claims,
    "ladder_main": ladder_main,
    "ladder_rungs": ladder_rungs,
    "copied": copied,
    **{name: functools.partial(panel, name) for name in _PANELS},
    **{name: functools.partial(extended, name) for name in _EXTENDED},
}
