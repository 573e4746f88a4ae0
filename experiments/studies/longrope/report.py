"""Reports whether each LongRoPE search beat its starting points, on documents it never read."""

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from rich.console import Console

from experiments.results.reports.drawing import COLOURS, drawing_style, finish, styles_of, svg
from experiments.results.reports.markdown import markdown_table
from experiments.results.reports.page import (
    GridCell,
    grid,
    mean_cell,
    page,
    print_failures,
    terminal_table,
    write_report,
)
from experiments.results.reports.templates import figure, section
from experiments.results.statistics import (
    Record,
    Study,
    by_seed,
    cells_of,
    mean_and_stderr,
    number,
    words,
)

# The report's titles of the groups of rows; {near}, {train} and {far} are lengths in tokens.
GROUPS = {
    "near": "At {near} tokens, {factor}x the train length",
    "short": "At the train length, {train} tokens",
    "far": "At {far} tokens, fine-tuned at {near} only",
}
METRICS = {
    "loss": "all tokens",
    "last_loss": "last {last_tokens} tokens",
    "needle_loss": "needle's answer",
}
# The table that judges each search, and the loss that the search has minimised.
_OBJECTIVES = {
    "longrope": ("near", "loss"),
    "released": ("near", "loss"),
    "longrope2": ("near", "needle_loss"),
    "progressive": ("far", "loss"),
    "tuned, short": ("short", "loss"),
}


@dataclasses.dataclass(frozen=True)
class SearchStudy(Study):
    """Holds the results of all seeds.

    A record has ``scheme``, ``seed`` and the fields of ``stages.score``. ``about`` has
    ``train_length, factor, last_tokens, corpus, corpus_digest`` besides every study's fields.

    Attributes:
      searches: for each seed and search, the entry of ``Stages.searches``.
      tuning: for each seed and fine-tuned model its ``name`` and cost.
    """

    searches: list[Record]
    tuning: list[Record]

    @classmethod
    def of(cls, evaluations, training, failures, about) -> "SearchStudy":
        """Returns the study of the evaluations of all seeds."""
        records, searches, tuning = (
            [{"seed": run["training"]["seed"]} | one for run in evaluations for one in run[key]]
            for key in ("records", "searches", "tuning")
        )
        return cls(records, training, failures, about, searches, tuning)

    @property
    def groups(self) -> dict[str, str]:
        """Returns the titles of the tables that have records, by group."""
        length = {"train": self.about["train_length"], "factor": self.about["factor"]}
        near = length["train"] * length["factor"]
        length |= {"near": near, "far": near * length["factor"]}
        scored = {record["group"] for record in self.records}
        return {group: title.format(**length) for group, title in GROUPS.items() if group in scored}

    def columns(self) -> dict[str, str]:
        """Returns the titles of the columns of every table, by the metric that was measured."""
        titles = {metric: title.format(**self.about) for metric, title in METRICS.items()}
        return {metric: titles[metric] for metric in titles if metric in self.records[0]}


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Compares the result of a search with the best of its rivals, seed by seed.

    Attributes:
      search: the search.
      rivals: "start" (what it started from) or "method" (the known methods).
      metric: the loss that the search has minimised.
      differences: for each seed, the loss of the result minus the smallest loss of a rival.
    """

    search: str
    rivals: str
    metric: str
    differences: list[float]

    @property
    def holds(self) -> bool:
        """Returns whether the search beats every rival under every seed."""
        return all(difference < 0 for difference in self.differences)

    def __str__(self) -> str:
        mean, stderr, count = mean_and_stderr(self.differences)
        better = sum(difference < 0 for difference in self.differences)
        extra = f" ± {stderr:.4f}" if stderr is not None else ""
        rivals = {"start": "what it started from", "method": "the known methods"}[self.rivals]
        what = "beats" if self.holds else "does not beat"
        return (
            f"{self.search} {what} {rivals}: {METRICS[self.metric].split(' {')[0]}, "
            f"{mean:+.4f}{extra} nats against the best of them, better under {better} of {count} "
            f"seed{'s' * (count != 1)}"
        )


def verdicts(study: SearchStudy) -> list[Verdict]:
    """Returns the verdicts on every search, against its starting points and known methods."""
    table, judged = pd.DataFrame(study.records), []
    for search, (group, metric) in _OBJECTIVES.items():
        rows = table[table["group"] == group]
        losses = rows[rows["scheme"] == search].set_index("seed")
        prefix = "tuned, " if search.startswith("tuned, ") else ""
        of_search = (s for s in study.searches if prefix + s["search"] == search)
        starts = {f"{prefix}{name} (start)" for s in of_search for name in s["seeds"]}
        for kind in ("start", "method"):
            rivals = rows[rows["kind"] == kind]
            if kind == "start":
                rivals = rivals[rivals["scheme"].isin(starts)]
            if len(losses) and len(rivals):
                best = rivals.groupby("seed")[metric].min()
                differences = (losses[metric] - best).dropna().tolist()
                judged.append(Verdict(search, kind, metric, differences))
    return judged


def write(folder: Path, study: SearchStudy) -> Path:
    """Writes the report and its figures into ``folder``; returns ``report.html``'s path.

    Raises:
      ValueError: the study is empty.
    """
    study.check()
    with drawing_style():
        drawn = {name: svg(drawing) for name, drawing in _draw(study).items()}
    return write_report(folder, study, _page(study, drawn), drawn, results=markdown(study))


def print_tables(study: SearchStudy, console: Console) -> None:
    """Prints a table for each length, the verdicts, and what failed."""
    print_failures(study.failures, console)
    for group, title in study.groups.items():
        heads = study.columns().values()
        console.print(terminal_table(f"{title}: nats a token", heads, _cells(study, group)))
    for verdict in verdicts(study):
        console.print(str(verdict), highlight=False)


def markdown(study: SearchStudy) -> str:
    """Returns the tables and the verdicts in Markdown."""
    parts, heads = [], ["scheme", *study.columns().values()]
    for group, title in study.groups.items():
        by_scheme = _cells(study, group).items()
        rows = [[scheme, *(cell.plain for cell in row)] for scheme, row in by_scheme]
        parts.append(f"{title}, nats a token:\n\n{markdown_table(heads, rows)}")
    parts.append("".join(f"- {verdict}\n" for verdict in verdicts(study)))
    return "\n".join(parts)


def _cells(study: SearchStudy, group: str) -> dict[str, list[GridCell]]:
    """Returns the cells of a table by scheme, the smallest loss first."""
    records, metrics = [r for r in study.records if r["group"] == group], study.columns()
    columns = {m: cells_of(by_seed(records, "group", m, group)) for m in metrics}
    best = {m: min(row[group][0] for row in column.values()) for m, column in columns.items()}
    return {
        scheme: [
            GridCell(
                *words(columns[m], scheme, group), is_best=columns[m][scheme][group][0] == best[m]
            )
            for m in metrics
        ]
        for scheme in sorted(columns["loss"], key=lambda s: columns["loss"][s][group][0])
    }


FIGURES = {
    "searches": (
        "Losses of the candidates by generation",
        "First seed, on the documents that the search reads. Each dot is a candidate, the black "
        "line the best so far; the lines across are the best three that the search started from. "
        "What is far above is not shown.",
    ),
    "factors": (
        "Factors by channel pair",
        "How many times slower than in RoPE each pair turns, the fastest pair first. Lines of one "
        "colour are seeds, the first of them thick. Where a fine-tuned model is extended again, "
        "pi, ntk and yarn make its pairs slower than they are already.",
    ),
}


def _page(study: SearchStudy, drawn: dict[str, str]) -> str:
    about = study.about
    trials = about["trials"]
    counts = " and ".join(
        f"{count} of {length} tokens" for length, count in about["scored"].items()
    )
    intro = (
        f"A model trained under RoPE at {about['train_length']} tokens, extended by searched "
        f"factors. Seeds: {study.seeds}. The searches read documents of the "
        f"{trials['search_split']} split; every score below is of documents of the "
        f"{trials['split']} split, {counts}."
    )
    beats = (
        "On held-out documents, in the loss that the search has minimised on others. It beats its "
        "rivals if it is better than the best of them under every seed."
    )
    title = "Does a search beat what it started from?"
    parts = [section(title, caption=beats, items=map(str, verdicts(study))), *_tables(study)]
    parts += [figure(name, *FIGURES[name], drawing) for name, drawing in drawn.items()]
    if study.tuning:
        digits = {"steps": 0, "tokens": 0, "seconds": 1, "final_loss": 3}
        rows = {
            str(name): [mean_cell(costs[key].tolist(), n) for key, n in digits.items()]
            for name, costs in pd.DataFrame(study.tuning).groupby("name", sort=False)
        }
        heads = [key.replace("_", " ") for key in digits]
        parts.append(section("Fine-tuning", grid(heads, rows)))
    data = {"Corpus": about["corpus"], "digest": about["corpus_digest"], "model": about["source"]}
    return page("LongRoPE: searched factors", study, data, intro=intro, parts=parts)


def _tables(study: SearchStudy) -> Iterator[Markup]:
    caption = (
        "Nats a token, lower is better: mean ± standard error over seeds, best of a column in "
        "bold. (start): where a search began, under LongRoPE's attention factor; pi, ntk and "
        "yarn have their own."
    )
    for group, title in study.groups.items():
        yield section(title, grid(study.columns().values(), _cells(study, group)), caption)


def _draw(study: SearchStudy) -> dict[str, Figure]:
    """Returns the figures by name: the searches of the first seed, and factors; or none."""
    if not study.searches:
        return {}
    first = min(search["seed"] for search in study.searches)
    searches = [search for search in study.searches if search["seed"] == first]
    columns = min(2, len(searches))
    rows = -(-len(searches) // columns)
    drawing = Figure(figsize=(8.8, 3.2 * rows + 0.2), layout="constrained")
    for place, search in enumerate(searches, 1):
        _search(drawing.add_subplot(rows, columns, place), search)
    return {"searches": drawing, "factors": _factors(study)}


def _search(axes: Axes, search: dict[str, Any]) -> None:
    """Draws the losses of one search by generation."""
    losses = [np.array(generation) for generation in search["losses"]]
    best = np.minimum.accumulate([generation.min() for generation in losses])
    for count, generation in enumerate(losses):
        axes.plot(np.full(len(generation), count), generation, ".", color="#bbbbbb", markersize=3)
    axes.plot(best, color="#222222", linewidth=1.8, label="best so far")
    # Only the best three starting points are drawn.
    starts = {name: loss for name, loss in search["seeds"].items() if math.isfinite(loss)}
    shown = sorted(starts, key=starts.__getitem__)[:3]
    styles = styles_of(shown)
    for name in shown:
        label = f"{name}, {number(starts[name])}"
        axes.axhline(starts[name], **styles[name] | {"linewidth": 1.2}, label=label)
    # The plot ends as far above the best starting point as the search came below it.
    high = max(best[0], min(starts.values(), default=best[0]))
    margin = (high - best[-1]) or 0.01
    axes.set(ylim=(best[-1] - 0.1 * margin, high + margin))
    axes.set(xlabel="generation", ylabel="nats a token")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_title(search["search"], loc="left", fontsize=10, parse_math=False)
    axes.legend(fontsize=7.5, framealpha=0.8, edgecolor="none")
    finish(axes)


def _factors(study: SearchStudy) -> Figure:
    """Draws a plot of factors by pair for each length that searches were made for."""
    by_length = {"near": ("longrope", "released", "longrope2"), "far": ("progressive",)}
    shown = {
        title: [search for search in study.searches if search["search"] in by_length.get(group, ())]
        for group, title in study.groups.items()
    }
    shown = {title: searches for title, searches in shown.items() if searches}
    drawing = Figure(figsize=(8.8, 3.8), layout="constrained")
    for place, (title, searches) in enumerate(shown.items(), 1):
        axes = drawing.add_subplot(1, len(shown), place)
        _curves(axes, searches)
        axes.set(xlabel="channel pair", ylabel="factor")
        axes.set_yscale("log", base=2)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.set_title(title, loc="left", fontsize=9, parse_math=False)
        axes.legend(fontsize=7.5, framealpha=0.8, edgecolor="none")
        finish(axes)
    return drawing


def _curves(axes: Axes, searches: list[dict[str, Any]]) -> None:
    """Draws the factors of known methods in grey, and the results of searches in colours."""
    known = {name: line for search in searches for name, line in search["factors"].items()}
    for name, dash in zip(("pi", "ntk", "yarn"), ("--", ":", "-."), strict=True):
        if name in known:
            axes.plot(known[name], dash, color="#777777", linewidth=1.4, label=name)
    names = list(dict.fromkeys(search["search"] for search in searches))
    for search in searches:
        genome, is_first = search["found"]["genome"], search["seed"] == searches[0]["seed"]
        label = search["search"]
        if genome["start_tokens"]:
            label += f" (first {genome['start_tokens']} tokens as in RoPE)"
        axes.plot(
            genome["factors"],
            color=COLOURS[names.index(search["search"])],
            linewidth=1.8 if is_first else 0.9,
            label=label if is_first else None,
        )
