"""Makes the tables of ``docs/results.md``, with the families that their marks belong to.

Most have answers of the atlas; one has those of models that ``configs/extrapolation.py:long``
trained longer, and the last ones are about the ladder and the ledger.
"""

import collections
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import pandas as pd

from experiments.results.answers import OWN_WINDOW, TASKS, Answer, by_question, marked, shown
from experiments.results.ladder import OPPONENTS, ROPE
from experiments.results.lengths import WINDOWED
from experiments.results.reports import ladder_page, templates, trust
from experiments.results.reports.markdown import families_below, markdown_table
from experiments.results.reports.sources import Sources

TABLES = templates.tables("atlas_tables")
# The headings of tables that README.md has too.
WINS, PAIRS = "Which schemes win on the ladder", "Does the order last?"


def of_atlas(
    rows: templates.Table,
    answers: pd.DataFrame,
    compared: pd.DataFrame,
    trained: dict[str, str],
    trusted: Mapping[trust.Question, list[str]],
) -> str:
    """Returns a table of the atlas in Markdown, and what its marks are about.

    ``compared`` has the families that the answers were compared in, and ``trained`` the scheme
    whose model a scheme is evaluated on. The last row has the badges in ``trusted``. Raises a
    ValueError if an answer is missing.
    """
    answer_of, lines, asked = by_question(answers), [], set()
    for scheme in rows.schemes.split():
        model = "rope" if scheme == WINDOWED else trained.get(scheme, scheme)
        line = [f"`{scheme}`" + f" (on `{model}`)" * (model != scheme)]
        for topic, multiple in rows.columns.values():
            answer = answer_of.get((scheme, topic, multiple))
            if answer is None and scheme != WINDOWED:  # which has losses only
                raise ValueError(
                    f"no result has {scheme} at {topic} {multiple}x; run it, or take it out of the "
                    f"table {rows.heading!r} in templates/tables.yaml"
                )
            line.append(_cell(answer) if answer else "-")
            if answer:
                is_gain = isinstance(answer[f"vs_{OWN_WINDOW}"], str)
                asked.add((answer["family"], OWN_WINDOW if is_gain else WINDOWED))
        lines.append(line)
    told = [trust.words(trusted.get(question, [])) for question in rows.columns.values()]
    if any(told):
        lines.append(["*trust*", *told])
    return markdown_table(["scheme", *rows.columns], lines) + _families_of(compared, asked)


def of_ladder(ladder: Mapping[str, Any]) -> str:
    """Returns the main rung of the ladder as a table in Markdown."""
    rung = ladder["rungs"][ladder["main"]]
    heads = ["scheme", f"loss at {rung['length']}", "loss beyond", "gain beyond", "seeds"]
    lines, asked = [], set()
    for row in rung["rows"]:
        cells = [marked(row[topic], other) for topic, other in OPPONENTS.items()]
        answers = [answer for answer in row.values() if isinstance(answer, dict)]
        seeds = f"{max(answer['seeds'] for answer in answers):.0f}"
        lines.append([f"`{row['scheme']}`", *cells, seeds])
        asked |= {(row[topic]["family"], o) for topic, o in OPPONENTS.items() if row[topic]}
    return markdown_table(heads, lines) + _families_of(pd.DataFrame(rung["families"]), asked)


def of_rungs(ladder: Mapping[str, Any], topic: str) -> str:
    """Returns the answers to one topic by rung, for schemes of three rungs or more, in Markdown."""
    rungs = [rung for rung in ladder["rungs"].values() if any(_by_scheme(rung, topic, [ROPE]))]
    counts = collections.Counter(
        row["scheme"] for rung in rungs for row in rung["rows"] if row[topic]
    )
    schemes = [scheme for scheme, count in counts.items() if count >= min(3, len(rungs))]
    lines, asked = [], set()
    for rung in sorted(rungs, key=lambda rung: (rung["width"], rung["length"], rung["tokens"])):
        line = [rung["title"]]
        for answer in _by_scheme(rung, topic, schemes):
            line.append(marked(answer, OPPONENTS[topic]))
            if answer:
                asked.add((answer["family"], OPPONENTS[topic]))
        lines.append(line)
    compared = pd.DataFrame([family for rung in rungs for family in rung["families"]])
    heads = ["rung", *(f"`{scheme}`" for scheme in schemes)]
    return markdown_table(heads, lines) + _families_of(compared, asked)


def of_wins(ladder: Mapping[str, Any]) -> str:
    """Returns which schemes are better than the baselines on each rung, in Markdown."""
    words = templates.macros("ladder_words.md")
    heads = ["parameters", "tokens of a text", "tokens per parameter", "seeds"]
    heads += ["at the trained length", "in longer texts", "with the whole context"]
    lines = []
    for rung in ladder["ordered"]:
        numbers = [words.million(rung), f"{rung['length']}", words.rate(rung), f"{rung['seeds']}"]
        lines.append([*numbers, *map(words.cell, rung["wins"].values())])
    return markdown_table(heads, lines)


def of_pairs(ladder: Mapping[str, Any]) -> str:
    """Returns the rank correlations of the ladder's pairs of rungs as a table in Markdown."""
    lines = []
    for pair in ladder["correlations"]:
        of_losses = [pair[loss] for loss in ("trained", "beyond")]
        seeds = next(f"{of['seeds'][0]} and {of['seeds'][1]}" for of in of_losses if of)
        cells = [
            "{rho:.2f} ({low:.2f} to {high:.2f}) of {schemes}".format(**of) if of else "-"
            for of in of_losses
        ]
        lines.append([pair["differs"], seeds, *cells])
    return markdown_table(
        ["from one rung to another", "seeds", "at the trained length", "beyond it"], lines
    )


def by_scheme(heads: list[str], rows: Mapping[str, list[str]]) -> str:
    """Returns a table with a row for each scheme in Markdown."""
    return markdown_table(["scheme", *heads], [[f"`{s}`", *row] for s, row in rows.items()])


def of_copied(models: pd.DataFrame, ladder: Mapping[str, Any]) -> str:
    """Returns how well models copy, by scheme and rung and a number for each seed, in Markdown.

    ``models`` is the table of ``evaluation/copying.py``.
    """
    models = models.sort_values("seed")
    models["shown"] = (models["copied"].round(2) + 0.0).map("{:.2f}".format)  # no "-0.00"
    by_rung = models.groupby(["scheme", "rung"])["shown"].agg(", ".join).unstack()
    rungs = [rung for rung in ladder["rungs"] if rung in by_rung]
    on_main = models[models["rung"] == ladder["main"]]
    schemes = on_main.groupby("scheme")["copied"].mean().sort_values(ascending=False).index
    lines = [
        [f"`{scheme}`", *by_rung.loc[scheme].reindex(rungs).fillna("-")]
        for scheme in [*schemes, *by_rung.index.difference(schemes)]
    ]
    return markdown_table(["scheme", *(f"`{rung}`" for rung in rungs)], lines)


def of_claims(ledger: Mapping[str, Any]) -> str:
    """Returns the verdict on each published claim, before and after correction, in Markdown."""
    lines = [
        [claim["says"], claim["source"], claim["verdict"], claim["after_correction"]]
        for claim in ledger["claims"]
    ]
    return markdown_table(["claim", "source", "verdict", "after correction"], lines)


def _by_scheme(rung: Mapping[str, Any], topic: str, schemes: Iterable[str]) -> list[Any]:
    """Returns a rung's answers to a topic, None where a scheme has none."""
    rows = {row["scheme"]: row for row in rung["rows"]}
    return [rows.get(scheme, {}).get(topic) for scheme in schemes]


def _families_of(compared: pd.DataFrame, asked: Collection[tuple[str, str]]) -> str:
    """Says what the marks of a table are about: the families that its answers are in."""
    is_asked = [pair in asked for pair in zip(compared["family"], compared["against"], strict=True)]
    return families_below(compared[is_asked])


def _cell(answer: Answer) -> str:
    """Writes an answer; what is better than the own window is bold."""
    if answer["family"] == TASKS:
        return shown(answer)
    is_gain = answer[f"vs_{OWN_WINDOW}"] == "better"
    return f"**{shown(answer)}**" if is_gain else marked(answer, WINDOWED)


def tables(sources: Sources) -> dict[str, str]:
    """Returns all tables in Markdown, by their headings."""
    atlas = sources.atlas
    answers = pd.concat([atlas.answers, sources.longer])
    compared = pd.concat([atlas.families, sources.longer_families])
    made = {
        rows.heading: of_atlas(rows, answers, compared, atlas.trained, sources.trust)
        for rows in TABLES
    }
    return made | {
        "The ladder": of_ladder(sources.ladder),
        WINS: of_wins(sources.ladder),
        PAIRS: of_pairs(sources.ladder),
        "How much compute RoPE needs for the same loss": by_scheme(
            *ladder_page.compute(sources.ladder)
        ),
        "Trained on longer texts instead": by_scheme(*ladder_page.oracle(sources.ladder)),
        "Rungs, at the trained length": of_rungs(sources.ladder, "text"),
        "Rungs, beyond the trained length": of_rungs(sources.ladder, "text, beyond"),
        "Copying": of_copied(sources.copied, sources.ladder),
        "Published claims": of_claims(sources.ledger),
    }
