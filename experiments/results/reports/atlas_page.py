"""Writes the atlas as pages that need no server and no network: an index, and one per scheme."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from scipy import stats

from experiments.results import atlas_data
from experiments.results.answers import MARKS, OWN_WINDOW, SOLVED, TASKS, Answer
from experiments.results.atlas import Atlas, family, unanswered_words
from experiments.results.comparisons import statement
from experiments.results.lengths import WINDOWED
from experiments.results.record import write_files
from experiments.results.reports import maps, scheme_page
from experiments.results.reports.drawing import page_style
from experiments.results.reports.page import learning_rates
from experiments.results.reports.templates import document, fill
from experiments.results.statistics import failure_words, number

# With whom an answer is compared in the table: with the first one that has an answer.
_DECISIVE = (OWN_WINDOW, WINDOWED, "rope", "nope")
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

    Args:
      folder: the folder, see ``atlas_data.py`` for the data.
      atlas: all answers.
      cards: what each scheme does to attention and what it costs, as HTML.
      probes: the results of ``evaluation/probes.py`` by scheme.
      claims: the ledger; empty if there is none yet.
    """
    files, drawn = atlas_data.files(atlas), figures(atlas)
    ledger = "../claims/claims.html" if claims else ""
    index = body(atlas, drawn, "schemes/{}.html", ledger)
    files["index.html"] = document("Atlas of positional encodings", index, "broad")
    with page_style():
        pages = {
            f"{name}.html": document(
                f"{name}: atlas of positional encodings",
                scheme_page.body(atlas, name, cards.get(name, ""), probes.get(name), claims),
            )
            for name in atlas.schemes
        }
    write_files(folder, files | {f"{name}.svg": drawing for name, drawing in drawn.items()})
    write_files(folder / "schemes", pages)
    return folder / "index.html"


def body(atlas: Atlas, drawn: Mapping[str, str], scheme_url: str, ledger_url: str) -> str:
    """Returns the index as HTML for a page of its own or of the site.

    ``drawn`` is what ``figures`` returns. The page of a scheme is at ``scheme_url``, with {} for
    its name, and the ledger, if there is one, at ``ledger_url``.
    """
    # Single answers have no column, nor have tasks that nobody learned.
    is_shown = ~atlas.questions["topic"].str.endswith(", answers")
    is_shown &= ~atlas.questions["topic"].isin(atlas.unlearned)
    questions = atlas.questions[is_shown].to_dict("records")
    answers = atlas.rows()
    rows = [
        {"names": [name, *others], "family": family(name)}
        | {"cells": [_cell(answers.get((name, q["question"]))) for q in questions]}
        for name, others in atlas.distinct.items()
    ]
    return fill(
        "atlas.html",
        finding=finding(atlas),
        figures=drawn,
        captions=_captions(atlas),
        questions=questions,
        topics=atlas.questions.drop_duplicates("topic").to_dict("records"),
        rows=rows,
        families=sorted({row["family"] for row in rows}),
        failures=[failure_words(failure) for failure in atlas.failures],
        unanswered=unanswered_words(atlas),
        statement=statement(atlas.families),
        most_seeds=atlas.answers["seeds"].max(),
        solved=SOLVED,
        window=WINDOWED,
        marks=MARKS,
        scheme_url=scheme_url,
        ledger_url=ledger_url,
        about={"setup": "", "tasks": {}} | atlas.about,
        controls=atlas.controls,
        rates={k: learning_rates(v) for k, v in atlas.about.get("rates", {}).items() if v},
    )


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


def finding(atlas: Atlas) -> list[str]:
    """Returns what the atlas found, as sentences."""
    sentences = []
    last = atlas.to("text", atlas.longest)
    if WINDOWED in last.index:
        others = last.drop(index=WINDOWED)
        word = others[f"vs_{WINDOWED}"]
        sentences.append(
            f"RoPE read through a window of the trained length loses nothing in longer texts, and "
            f"is the line to beat. At {atlas.longest:g} times that length, {_some(word, 'better')} "
            f"of {len(others)} schemes that differ are better than it, {sum(word == 'worse')} are "
            f"worse, and the others cannot be told from it."
        )
    for topic, of in (("gain", "text as in training"), ("gain, manual", "a manual")):
        word = atlas.to(topic, atlas.longest)[f"vs_{OWN_WINDOW}"]
        if len(word):
            sentences.append(
                f"More context than in training makes {_some(word, 'better')} of them better than "
                f"through their own windows on {of}."
            )
    if atlas.unlearned:
        sentences.append(
            f"No scheme has learned {', '.join(atlas.unlearned)}: of longer rows these tasks say "
            "nothing, and have no column below."
        )
    return sentences


def _some(words: pd.Series, word: str) -> str:
    """Returns how many schemes have a verdict, and who they are."""
    names = sorted(words.index[words == word])
    return f"{len(names)} ({', '.join(names)})" if names else "none"


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
    window = atlas.to("text, windowed", 1)["mean"]
    points = pd.DataFrame({"window": window, "above": atlas.to("text", atlas.longest)["mean"]})
    points["above"] -= points["window"]
    return points.drop(index=WINDOWED, errors="ignore").dropna()


def recall_points(atlas: Atlas) -> pd.DataFrame:
    """Returns the points of ``maps.loss_and_recall``, for schemes whose loss is flat."""
    flat = window_points(atlas)
    loss = (flat["window"] + flat["above"])[flat["above"] < _FLAT]
    recall = atlas.to("recall", 4)
    learned = recall["learned"].astype(bool)
    return pd.DataFrame({"loss": loss, "recall": recall["mean"], "learned": learned}).dropna()


def _captions(atlas: Atlas) -> dict[str, tuple[str, str]]:
    """Returns the titles and captions of ``figures``."""
    points = recall_points(atlas)
    rho = stats.spearmanr(points["loss"], points["recall"])
    return {
        "window": maps.CAPTIONS["window"],
        "recall": (
            "Does a flat loss predict retrieval?",
            f"The {len(points)} schemes whose loss at {atlas.longest:g} times the trained length "
            f"is at most {_FLAT:g} bits above that through their own windows: that loss, and the "
            "share of rows of <i>recall</i> that are right at 4 times the trained length. Hollow: "
            "most seeds have not learned recall at the trained length. Spearman's rank "
            f"correlation is {rho.statistic:.2f} (p = {rho.pvalue:.2f}), where -1 would mean that "
            "a lower loss goes with more recall.",
        ),
    }
