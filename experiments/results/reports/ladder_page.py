"""Writes the report of the ladder: a page, its figures, and its data as CSV and JSON."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.results.comparisons import compared, families, statement
from experiments.results.ladder import (
    BEYOND,
    CUT,
    ROPE,
    TRAINED,
    Correlation,
    correlation,
    losses,
    speed_ups,
)
from experiments.results.lengths import WINDOWED
from experiments.results.record import write_files
from experiments.results.reports import ladder_figures
from experiments.results.reports.drawing import page_style
from experiments.results.reports.page import figure, head
from experiments.results.reports.templates import fill

_TITLES = {TRAINED: "trained", BEYOND: "beyond"}


def rung_table(records: pd.DataFrame, rung: str) -> tuple[pd.DataFrame, str]:
    """Returns the results of one rung by scheme, best first, and how verdicts were corrected.

    The columns are the losses, what the whole context is worth over the window, what a window in
    attention and a shuffled context change, and the comparison with RoPE through a window.
    """
    columns = {}
    for name, protocol in (("trained", TRAINED), ("beyond", BEYOND), ("window", CUT)):
        columns[name] = losses(records, rung, protocol).groupby("scheme")["value"].mean()
    table = pd.DataFrame(columns)
    table["beyond - window"] = table["beyond"] - table["window"]
    hidden = losses(records, rung, "window").groupby("scheme")["value"].mean()
    table["window in attention"] = hidden - table["window"]
    table["shuffled"] = _shuffled(records, rung)
    values = pd.concat(
        [
            losses(records, rung, protocol).assign(question=name)
            for protocol, name in _TITLES.items()
        ]
    ).assign(family=rung, is_error=True)
    tables = []
    for question, against in (("trained", ROPE), ("beyond", WINDOWED)):
        found = compared(values[values["question"] == question], against)
        tables.append(found)
        found = found.set_index("scheme")
        table[f"{question}, over {against}"] = -found["difference"]
        table[f"{question}, margin"] = found["margin"]
        table[f"{question}, verdict"] = found["verdict"]
    return table.sort_values("beyond"), statement(families(pd.concat(tables)))


def _shuffled(records: pd.DataFrame, rung: str) -> pd.Series:
    """Returns how much worse the last tokens are if the far context is shuffled, by scheme."""
    longest = records.loc[records["rung"] == rung, "multiple"].max()
    is_last = (records["protocol"] == "last") & (records["multiple"] == longest)
    whole = records[(records["rung"] == rung) & is_last].groupby("scheme")["bits"].mean()
    shuffled = records[(records["rung"] == rung) & (records["protocol"] == "shuffled")]
    return shuffled.groupby("scheme")["bits"].mean() - whole


def write(
    folder: Path,
    records: pd.DataFrame,
    curves: Mapping[str, list[tuple[int, float]]],
    about: Mapping[str, Any],
    pairs: Sequence[tuple[str, str]],
    sizes: Sequence[str],
    arrow: Sequence[str],
) -> Path:
    """Writes ``ladder.html``, its figures, ``ladder.csv`` and ``ladder.json``; returns the page.

    Args:
      folder: where the files go.
      records: the table of ``results/ladder.py``.
      curves: training losses by scheme of the longest rung, for ``by_tokens``.
      about: ``command, rules, device, git, date, corpus, corpus_digest, rungs``; the last has a
        title and a sentence for each rung.
      pairs: the rungs whose orders are compared.
      sizes: the rungs that differ in size alone.
      arrow: the rungs after short and after long training.
    """
    present = [rung for rung in about["rungs"] if (records["rung"] == rung).any()]
    missing = [rung for rung in about["rungs"] if rung not in present]
    found = [
        correlation(records, one, other, protocol)
        for protocol in _TITLES
        for one, other in pairs
        if {one, other} <= set(present)
    ]
    correlations = [each for each in found if each is not None]
    drawn = {}
    with page_style():
        if present:
            shown = [rung for rung in arrow if rung in present] or present[-1:]
            drawn["beyond_window"] = ladder_figures.beyond_window(records, shown)
        if ROPE in curves:
            drawn["by_tokens"] = ladder_figures.by_tokens(curves)
    tables = {rung: rung_table(records, rung) for rung in present}
    ups = {
        name: speed_ups(records, [rung for rung in sizes if rung in present], protocol)
        for protocol, name in _TITLES.items()
    }
    body = fill(
        "ladder.html",
        finding=_finding(correlations),
        missing=f"These rungs have no result yet: {', '.join(missing)}." if missing else "",
        correlations=_correlation_table(correlations),
        figures=[figure(name, *_FIGURES[name], drawing) for name, drawing in drawn.items()],
        rungs=[
            {
                "title": about["rungs"][rung]["title"],
                "says": f"{about['rungs'][rung]['says']} {said}",
                "table": _html(table),
            }
            for rung, (table, said) in tables.items()
        ],
        speed_ups=_speed_up_table(ups),
        digest=about["corpus_digest"],
        **{key: about[key] for key in ("command", "rules", "device", "git", "date", "corpus")},
    )
    files = {
        "ladder.html": head("The ladder") + body + "</html>\n",
        "ladder.csv": pd.concat(
            [table.assign(rung=rung) for rung, (table, _) in tables.items()]
        ).to_csv(float_format="%.5f"),
        "ladder.json": json.dumps(
            {
                "about": {key: value for key, value in about.items() if key != "config"},
                "correlations": [dataclasses.asdict(each) for each in correlations],
                "speed_ups": {name: table.to_dict("records") for name, table in ups.items()},
            },
            indent=1,
            default=str,
        )
        + "\n",
    }
    files |= {f"{name}.svg": drawing for name, drawing in drawn.items()}
    write_files(folder, files)
    return folder / "ladder.html"


_FIGURES = {
    "beyond_window": (
        "Is the context beyond a window worth anything?",
        "A scheme left of the vertical line is better through a window than RoPE is; below the "
        "horizontal line it is better with the whole context than through its own window. Losses "
        "far above are drawn at the upper edge. An arrow leads from short to long training.",
    ),
    "by_tokens": (
        "Speed or quality?",
        "Training loss of each scheme less that of RoPE at the same tokens, on the longest rung.",
    ),
}


def _finding(correlations: Sequence[Correlation]) -> str:
    """Returns the first sentence of the page: how far orders agree."""
    if not correlations:
        return ""
    told = "; ".join(
        f"{each.one} and {each.other}, {_TITLES[each.protocol]}: {each.rho:.2f} "
        f"[{each.low:.2f}, {each.high:.2f}] over {each.schemes} schemes"
        for each in correlations
    )
    return f"Rank correlations between rungs, with 95 % intervals: {told}."


def _correlation_table(correlations: Sequence[Correlation]) -> str:
    rows = pd.DataFrame(
        {
            "rung": each.one,
            "other rung": each.other,
            "loss": _TITLES[each.protocol],
            "schemes": each.schemes,
            "correlation": f"{each.rho:.2f}",
            "95 % interval": f"{each.low:.2f} to {each.high:.2f}",
        }
        for each in correlations
    )
    return _html(rows, index=False) if len(rows) else ""


def _speed_up_table(ups: Mapping[str, pd.DataFrame]) -> str:
    shown = []
    for name, table in ups.items():
        if len(table):
            words = table["speed_up"].map("{:.2f}".format) + table["is_beyond"].map(
                {True: " (continued)", False: ""}
            )
            shown.append(
                table.assign(words=words, column=name + ", " + table["rung"]).pivot(
                    index="scheme", columns="column", values="words"
                )
            )
    return _html(pd.concat(shown, axis=1).fillna("-")) if shown else ""


def _html(table: pd.DataFrame, index: bool = True) -> str:
    """Returns a table as HTML that scrolls sideways where the screen is narrow."""
    html = table.reset_index().to_html(
        index=False, border=0, na_rep="-", float_format="{:.3f}".format
    )
    if not index:
        html = table.to_html(index=False, border=0, na_rep="-", float_format="{:.3f}".format)
    return f"<div class=wide>{html}</div>"


def summary(records: pd.DataFrame) -> str:
    """Returns the losses beyond the trained length by scheme and rung, as a table of text."""
    table = {
        rung: losses(records, rung, BEYOND).groupby("scheme")["value"].mean()
        for rung in records["rung"].unique()
    }
    return pd.DataFrame(table).round(3).to_string(na_rep="-")
