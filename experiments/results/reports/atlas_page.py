"""Writes the atlas as pages that need no server and no network: an index, and one per scheme."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from rich.console import Console
from scipy import stats

from experiments.results import atlas_data
from experiments.results.answers import (
    AGAINST,
    MARKS,
    OWN_WINDOW,
    SOLVED,
    TASKS,
    Answer,
    by_question,
    shown,
)
from experiments.results.atlas import EFFECTIVE, Atlas, counts, family
from experiments.results.comparisons import statement
from experiments.results.length_table import CLEAR_GAIN
from experiments.results.lengths import WINDOWED
from experiments.results.record import write_files
from experiments.results.reports import maps, probe_figures
from experiments.results.reports.drawing import finish, page_style, styles_of, svg
from experiments.results.reports.page import learning_rates, print_failures, terminal_table
from experiments.results.reports.templates import document, fill
from experiments.results.statistics import failure_words, number
from posenc_jax import REGISTRY

# The table compares an answer with that of the first of these schemes that has one.
_DECISIVE = (OWN_WINDOW, WINDOWED, "rope", "nope")
# What an answer is compared with on the page of a scheme, and what that is called.
_WHOM = dict(zip(AGAINST, AGAINST, strict=True)) | {OWN_WINDOW: "its own window"}
# A scheme is flat if all context costs at most so many bits per byte more than its own window, and
# is named in the map if it costs at most half of that.
_FLAT = 0.2


def write(
    folder: Path,
    atlas: Atlas,
    cards: Mapping[str, str],
    probes: Mapping[str, dict[str, Any]],
    claims: list[dict[str, Any]],
) -> Path:
    """Writes the atlas, its pages and its data, into ``folder`` and returns the path of its index.

    By scheme, ``cards`` say what each does to attention and what it costs, as HTML, and ``probes``
    are the results of ``evaluation/probes.py``. ``claims`` is the ledger, empty if there is none.
    """
    files, drawn = atlas_data.files(atlas), figures(atlas)
    index = _index(atlas, drawn, has_ledger=bool(claims))
    files["index.html"] = document("Atlas of positional encodings", index, "broad")
    with page_style():
        pages = {
            f"{name}.html": document(
                f"{name}: atlas of positional encodings",
                _scheme(atlas, name, cards.get(name, ""), probes.get(name), claims),
            )
            for name in atlas.schemes
        }
    write_files(folder, files | {f"{name}.svg": drawing for name, drawing in drawn.items()})
    write_files(folder / "schemes", pages)
    return folder / "index.html"


def print_summary(atlas: Atlas, console: Console) -> None:
    """Prints at how many questions each scheme is better or worse than the baselines."""
    print_failures(atlas.failures, console)
    columns = [f"{word}\nthan {name}" for name in AGAINST for word in ("better", "worse")]
    table = terminal_table(f"verdicts on {len(atlas.questions)} questions", columns)
    for scheme in atlas.schemes:
        rows = atlas.answers[atlas.answers["scheme"] == scheme]
        cells = [count for name in AGAINST for count in counts(rows, name).values()]
        table.add_row(scheme, *map(str, cells))
    console.print(table)
    console.print(statement(atlas.families), highlight=False)
    if words := _unanswered(atlas):
        console.print(words, highlight=False)
    for words in atlas.controls:
        console.print(f"control: {words}", highlight=False)


def _index(atlas: Atlas, drawn: Mapping[str, str], has_ledger: bool) -> str:
    """Returns the index as HTML; ``drawn`` is what ``figures`` returns."""
    # Single answers have no column, nor have tasks that nobody learned.
    is_shown = ~atlas.questions["topic"].str.endswith(", answers")
    is_shown &= ~atlas.questions["topic"].isin(atlas.unlearned)
    questions = atlas.questions[is_shown].to_dict("records")
    answers, points = by_question(atlas.answers), recall_points(atlas)
    rows = [
        {"names": [name, *others], "family": family(name)}
        | {"cells": [_cell(answers.get((name, q["topic"], q["multiple"]))) for q in questions]}
        for name, others in atlas.distinct.items()
    ]
    return fill(
        "atlas.html",
        last=atlas.distinct_answers("text", atlas.longest)[f"vs_{WINDOWED}"],
        gains={
            of: atlas.distinct_answers(topic, atlas.longest)[f"vs_{OWN_WINDOW}"]
            for of, topic in (("text as in training", "gain"), ("a manual", "gain, manual"))
        },
        unlearned=atlas.unlearned,
        drawn=drawn,
        longest=atlas.longest,
        flat=_FLAT,
        points=len(points),
        rho=stats.spearmanr(points["loss"], points["recall"]),
        questions=questions,
        topics=atlas.questions.drop_duplicates("topic").to_dict("records"),
        rows=rows,
        families=sorted({row["family"] for row in rows}),
        failures=[failure_words(failure) for failure in atlas.failures],
        unanswered=_unanswered(atlas),
        statement=statement(atlas.families),
        most_seeds=atlas.answers["seeds"].max(),
        solved=SOLVED,
        window=WINDOWED,
        marks=MARKS,
        has_ledger=has_ledger,
        about={"setup": "", "tasks": {}} | atlas.about,
        controls=atlas.controls,
        rates={k: learning_rates(v) for k, v in atlas.about.get("rates", {}).items() if v},
    )


def _unanswered(atlas: Atlas) -> str:
    """Returns sentences about the topics and the schemes without any result yet, or none."""
    missing = {
        "No run has answered yet": atlas.unanswered,
        "No run has these schemes yet": [name for name in REGISTRY if name not in atlas.schemes],
    }
    return " ".join(f"{words}: {'; '.join(names)}." for words, names in missing.items() if names)


def _cell(row: Answer | None) -> dict[str, Any]:
    """Returns what a cell of the table shows, by what it sorts, and its verdict."""
    if row is None or not (row["learned"] or row["solved"]):
        return {"value": "", "mean": "-" if row is None else "", "small": "", "word": ""}
    told = [row[f"vs_{name}"] for name in _DECISIVE if isinstance(row[f"vs_{name}"], str)]
    word = told[0] if told and row["scheme"] != WINDOWED else ""
    if row["family"] == TASKS:
        mean, small = f"{row['solved']:.0f} of {row['seeds']}", ""
        value = row["solved"] + row["mean"]
    else:
        mean, value = number(row["mean"]), row["mean"]
        small = "" if pd.isna(row["margin"]) else f"±{number(row['margin'], row['mean'])}"
    return {"value": value, "mean": mean, "small": f"{small} {MARKS.get(word, '')}", "word": word}


def figures(atlas: Atlas) -> dict[str, str]:
    """Returns the two maps as SVG by name; one without data is left out."""
    points, drawn = window_points(atlas), {}
    with page_style():
        if "rope" in points.index:
            named = points.index[points["above"] < _FLAT / 2].union(["rope", "nope"])
            drawn["window"] = maps.beyond_window(points, points.iloc[:0], named)
        if len(recalled := recall_points(atlas)) > 2:
            drawn["recall"] = maps.loss_and_recall(recalled)
    return drawn


def window_points(atlas: Atlas) -> pd.DataFrame:
    """Returns the points of ``maps.beyond_window``: the last tokens of the longest texts."""
    window = atlas.distinct_answers("text, windowed")["mean"]
    whole = atlas.distinct_answers("text", atlas.longest)["mean"]
    points = pd.DataFrame({"window": window, "above": whole - window})
    return points.drop(index=WINDOWED, errors="ignore").dropna()


def recall_points(atlas: Atlas) -> pd.DataFrame:
    """Returns the points of ``maps.loss_and_recall``, for schemes whose loss is flat."""
    flat = window_points(atlas)
    loss = (flat["window"] + flat["above"])[flat["above"] < _FLAT]
    recall = atlas.distinct_answers("recall", 4)
    learned = recall["learned"].astype(bool)
    return pd.DataFrame({"loss": loss, "recall": recall["mean"], "learned": learned}).dropna()


def _scheme(atlas: Atlas, scheme: str, card: str, probes, claims: list[dict[str, Any]]) -> str:
    """Returns the page of a scheme as HTML; see ``write`` for the other arguments."""
    answers = atlas.answers[atlas.answers["scheme"] == scheme]
    same = next(([one, *rest] for one, rest in atlas.distinct.items() if scheme in [one, *rest]))
    return fill(
        "scheme.html",
        scheme=scheme,
        same=[name for name in same if name != scheme],
        trained="rope, through a window of the trained length"
        if scheme == WINDOWED
        else atlas.trained.get(scheme, scheme),
        card=card,
        count=len(atlas.questions),
        verdicts=[
            {"against": whom} | won
            for name, whom in _WHOM.items()
            if name != scheme and any((won := counts(answers, name)).values())
        ],
        length=_by_length(atlas, scheme),
        contexts=[
            f"{row['mean']:.0f} on {'the manual' if 'manual' in row['topic'] else 'text'}"
            for row in answers.to_dict("records")
            if row["topic"].startswith(EFFECTIVE)
        ],
        gain=CLEAR_GAIN,
        probes=probe_figures.draw(probes, atlas.about["train_length"]) if probes else {},
        whom=_WHOM,
        rows=[row | {"shown": shown(row)} for row in answers.to_dict("records")],
        statement=statement(atlas.families),
        claims=[claim for claim in claims if scheme in claim["schemes"]],
    )


def _by_length(atlas: Atlas, scheme: str) -> str:
    """Draws the loss by length of the scheme, and of the schemes that it is compared with."""
    of_text = atlas.answers[atlas.answers["topic"] == "text"]
    losses, margins = (
        of_text.pivot(index="scheme", columns="multiple", values=key).replace(math.inf, math.nan)
        for key in ("mean", "margin")
    )
    if scheme not in losses.index:
        return ""
    drawing = Figure(figsize=(5.2, 3.0), layout="constrained")
    axes = drawing.add_subplot()
    labels = [f"{multiple:g}x" for multiple in losses.columns]
    styles = styles_of((scheme, *AGAINST))
    for name in styles:
        if name in losses.index:
            bars = dict(yerr=margins.loc[name].fillna(0.0), capsize=2, label=name)
            axes.errorbar(labels, losses.loc[name], **bars, **styles[name])
    alone = atlas.answers[atlas.answers["topic"] == "text, windowed"].set_index("scheme")["mean"]
    if scheme in alone.index:
        colour = styles[scheme]["color"]
        label = f"{scheme} through its own window"
        axes.axhline(alone[scheme], color=colour, linestyle=":", label=label)
    axes.set(xlabel="context over the trained length", ylabel="bits per byte")
    finish(axes)
    axes.legend(frameon=False)
    return svg(drawing)
