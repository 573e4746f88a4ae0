"""Says which advantages of schemes last, from the tidy table of the ladder, see ``table.py``.

A study of the table is a rung: one training of all schemes, with its length, size and tokens. What
is compared on a rung are five measures of losses, in bits per byte:

trained  all tokens of texts of the trained length; with RoPE
beyond   all tokens after the first trained length of longer texts, see ``evaluation/controls.py``;
         with RoPE through a window, ``WINDOWED``, which reads them in windows of the trained length
gain     by how much "beyond" is lower than through a window of the trained length
order    by how much the loss of the last tokens is lower than where the far context is shuffled
sight    by how much "beyond" is lower than where every layer sees the nearest tokens alone

Where texts are of several kinds, all of them count together as the split "all", and the first three
measures are compared on each kind too: a mean hides a scheme that is better on one kind and worse
on another. Each measure is a family of questions of its own, because beyond the trained length
nearly every scheme is better than RoPE, which would lower the bar at the trained length.
"""

from collections.abc import Collection

import pandas as pd

from experiments.results.comparisons import compared, margins, marks
from experiments.results.lengths import WINDOWED
from experiments.results.table import COLUMNS, Table, grid, lowered, select

ROPE = "rope"
# What each measure is compared with; a gain is a difference already.
OPPONENTS = {"trained": ROPE, "beyond": WINDOWED, "gain": None, "order": None, "sight": None}
_OF_EACH_KIND = ("trained", "beyond", "gain")
# What is known of a rung besides losses, as measures.
PARAMETERS, TOKENS, LENGTH = "parameters", "training tokens", "trained length"


def asked(rung: pd.DataFrame) -> pd.DataFrame:
    """Returns the five measures of one rung; with texts of several kinds, of split "all" too."""
    longest = rung["x"][rung["measure"] == "last"].max()
    last, shuffled = (select(rung, measure=m, x=longest) for m in ("last", "shuffled"))
    whole, cut, hidden = (select(rung, measure=m) for m in ("beyond", "cut", "window"))
    window = select(cut, scheme=ROPE).assign(scheme=WINDOWED, measure="beyond")
    trained = select(rung, measure="non_overlapping", x=1).assign(measure="trained")
    measures = [
        trained,
        pd.concat([whole, window]),
        lowered(whole, cut, "gain"),
        lowered(last, shuffled, "order"),
        lowered(whole, hidden, "sight"),
    ]
    table = pd.concat(measures, ignore_index=True)
    if table["split"].nunique() < 2:
        return table.assign(split="all")
    whole = table.assign(split="all")
    if "text" in table:
        whole["text"] = table["split"] + " " + table["text"].astype(str)
    return pd.concat([whole, table], ignore_index=True)


def comparisons(rung: pd.DataFrame, extensions: Collection[str]) -> pd.DataFrame:
    """Compares the schemes of one rung; a family is a measure, "by kind" if kinds are apart.

    ``extensions`` are the schemes that read a model which another scheme has trained.
    """
    tables = []
    for (measure, is_whole), values in (table := asked(rung)).groupby(
        ["measure", table["split"] == "all"], sort=False
    ):
        if is_whole or measure in _OF_EACH_KIND:
            family = measure if is_whole else f"{measure} by kind"
            is_error = measure in ("trained", "beyond")
            values = values.assign(family=family, is_error=is_error)
            tables.append(compared(values, OPPONENTS[measure], extensions))
    return pd.concat(tables, ignore_index=True)


def rung_table(rung: pd.DataFrame, table: pd.DataFrame) -> Table:
    """Returns the losses of the schemes of one rung, from its rows and its comparisons."""
    length = f"{_known(rung, LENGTH):g}"
    heads = {"trained": f"loss at {length}", "beyond": "loss beyond", "gain": "gain beyond"}
    shown = _pooled(select(asked(rung), measure=heads))
    verdicts = select(table, split="all", measure=heads).assign(x=lambda t: t["measure"])
    return grid(
        shown.assign(x=shown["measure"]),
        title(rung),
        best_at="beyond",
        xs=heads,
        heads=heads.__getitem__,
        marks=marks(verdicts),
        margins=margins(select(verdicts, measure="gain")),
        caption=f"Bits per byte of all tokens: in texts of {length} tokens, and after the first "
        f"{length} tokens of longer texts. The gain is over windows of {length} tokens. "
        f"▲ better and ▼ worse than {ROPE}, than {WINDOWED}, and than no gain.",
    )


def rungs_table(frame: pd.DataFrame, table: pd.DataFrame, measure: str) -> Table:
    """Returns one measure on all rungs, of the schemes of three rungs or more."""
    rungs = dict(list(frame.groupby("study", sort=False)))
    titles = {name: title(rung) for name, rung in rungs.items()}
    shown = pd.concat(_pooled(select(asked(r), measure=measure)) for r in rungs.values())
    counts = shown.groupby("scheme", sort=False)["study"].nunique()
    schemes = list(counts.index[counts >= min(3, len(rungs))])
    shown = select(shown, scheme=schemes)
    order = sorted(set(shown["study"]), key=lambda name: _size(rungs[name]))
    signs = select(table, split="all", measure=measure)
    return grid(
        shown.assign(x=shown["scheme"], scheme=shown["study"].map(titles)),
        f"Rungs, {measure}",
        schemes=[titles[name] for name in order],
        xs=schemes,
        marks=marks(signs.assign(x=signs["scheme"], scheme=signs["study"].map(titles))),
    )


def title(rung: pd.DataFrame) -> str:
    """Says how large the models of a rung are, and how they were trained."""
    parameters, tokens = _known(rung, PARAMETERS), _known(rung, TOKENS)
    return (
        f"{parameters / 1e6:.2f}M parameters, texts of {_known(rung, LENGTH):g} tokens, "
        f"{tokens / parameters:.2g} tokens per parameter"
    )


def _size(rung: pd.DataFrame) -> tuple[float, ...]:
    """Returns what rungs are ordered by; sizes that differ by little are the same."""
    parameters = round(_known(rung, PARAMETERS), -4)
    return parameters, _known(rung, LENGTH), _known(rung, TOKENS)


def _known(rung: pd.DataFrame, measure: str) -> float:
    """Returns what is known of a rung, by RoPE if it is there."""
    rows = select(rung, measure=measure)
    of_rope = select(rows, scheme=ROPE)
    return float((of_rope if len(of_rope) else rows)["value"].iloc[0])


def _pooled(table: pd.DataFrame) -> pd.DataFrame:
    """Returns the mean over all texts of all splits, by scheme, seed, measure and x."""
    table = select(table, split="all") if "all" in set(table["split"]) else table
    keys = [column for column in COLUMNS if column not in ("value", "split")]
    return table.groupby(keys, sort=False)["value"].mean().reset_index().assign(split="all")
