"""Writes the page of one scheme in the atlas."""

import html
import math
from typing import Any

from matplotlib.figure import Figure

from experiments.results.answers import AGAINST, OWN_WINDOW
from experiments.results.atlas import EFFECTIVE, Atlas, counts
from experiments.results.comparisons import statement
from experiments.results.lengths import GAIN, WINDOWED
from experiments.results.reports import probe_figures
from experiments.results.reports.atlas_cells import (
    COLOURS_OF,
    MARKS,
    STYLE,
    Rows,
    is_shown,
    mean_losses,
    spread,
)
from experiments.results.reports.drawing import finish, styles_of, svg
from experiments.results.reports.page import figure, head, text
from experiments.results.statistics import number

_WHOM = {**{name: name for name in AGAINST}, OWN_WINDOW: "its own window"}


def scheme_page(atlas: Atlas, rows: Rows, scheme: str, card: str, probes, claims) -> str:
    """Returns the page of a scheme; the other arguments are those of ``atlas_page.write``."""
    trained = atlas.trained.get(scheme, scheme)
    swapped = f" It reads the checkpoints of {trained}." if trained != scheme else ""
    if scheme == WINDOWED:
        swapped = " It is rope, read through a window of the trained length."
    answers = atlas.answers[atlas.answers["scheme"] == scheme]
    verdicts = "; ".join(
        f"against {_WHOM[name]}, better at {won['better']} and worse at {won['worse']}"
        for name in (*AGAINST, OWN_WINDOW)
        if name != scheme and any((won := counts(answers, name)).values())
    )
    parts = [
        head(f"{scheme}: atlas of positional encodings", STYLE),
        f"<div class=text-column><p><a href='../index.html'>All schemes</a></p><h1>{scheme}</h1>",
        f"{card}<p>Of {len(atlas.questions)} questions: {verdicts}.{text(swapped)}</p>",
        _by_length(atlas, scheme),
        f"<h2>Answers</h2><div class=wide>{_answers(atlas, rows, scheme)}</div>",
        _claims(scheme, claims),
        *_probes(probes, atlas.about["train_length"]),
        "</div></html>\n",
    ]
    return "\n".join(parts)


def _by_length(atlas: Atlas, scheme: str) -> str:
    """Draws the loss by length of the scheme, and of the schemes that it is compared with."""
    losses, alone = (mean_losses(atlas, topic) for topic in ("text", "text, windowed"))
    if scheme not in losses.index:
        return ""
    names = [name for name in dict.fromkeys((scheme, *AGAINST)) if name in losses.index]
    margins = atlas.answers[atlas.answers["topic"] == "text"]
    margins = margins.pivot(index="scheme", columns="multiple", values="margin").fillna(0.0)
    drawing = Figure(figsize=(5.2, 3.0), layout="constrained")
    axes = drawing.add_subplot()
    labels = [f"{multiple:g}x" for multiple in losses.columns]
    styles = styles_of(names)
    for name in names:
        bars = dict(yerr=margins.loc[name], capsize=2, label=name)
        axes.errorbar(labels, losses.loc[name], **bars, **styles[name])
    if scheme in alone.index:
        colour = styles[scheme]["color"]
        label = f"{scheme} through its own window"
        axes.axhline(alone.loc[scheme].iloc[0], color=colour, linestyle=":", label=label)
    axes.set(xlabel="context over the trained length", ylabel="bits per byte")
    finish(axes)
    axes.legend(frameon=False)
    caption = "The same last tokens at every length; bars: 95 % intervals over seeds."
    contexts = atlas.answers[(atlas.answers["scheme"] == scheme)]
    contexts = contexts[contexts["topic"].str.startswith(EFFECTIVE)]
    tokens = [
        f"{row['mean']:.0f} on {'the manual' if 'manual' in row['topic'] else 'text'}"
        for row in contexts.to_dict("records")
    ]
    if tokens:
        caption += (
            f" The effective context has these tokens: {', '.join(tokens)}. It is the longest one "
            f"with a gain, at and beyond which the loss is lower by {GAIN} bits than with less."
        )
    return figure("length", "Loss by length of the context", caption, svg(drawing))


def _answers(atlas: Atlas, rows: Rows, scheme: str) -> str:
    heads = "".join(f"<th>against {name}" for name in _WHOM.values())
    body = []
    for question in atlas.questions.to_dict("records"):
        row = rows.get((scheme, question["question"]))
        shown, against = "-", "<td>" * len(_WHOM)
        if row is not None:
            shown = f"{number(row['mean'])} <small>{spread(row)}</small>"
            shown = shown if is_shown(row) else "not learned"
            against = "".join(_against(row, name) for name in _WHOM)
        says = html.escape(question["says"])
        body.append(
            f"<tr><th class=text title='{says}'>{text(question['question'])}<td>{shown}{against}"
        )
    return (
        f"<table><thead><tr><th class=text>question<th>mean{heads}<tbody>{''.join(body)}</table>"
        "<figcaption>A positive difference is in the scheme's favour; ± is half of the 95 % "
        f"interval over seeds. {MARKS['better']} on blue is better and {MARKS['worse']} on orange "
        f"is worse. {text(statement(atlas.families))} <a href='../index.html#questions'>What each "
        "question asks</a>.</figcaption>"
    )


def _against(row: dict[str, Any], other: str) -> str:
    word, difference, margin = (row[f"vs_{other}{end}"] for end in ("", "_difference", "_margin"))
    if not isinstance(word, str):
        return "<td>"
    shown = "" if math.isnan(difference) else f" {difference:+.3f}"
    shown += "" if math.isnan(margin) else f" ± {number(margin)}"
    style = f" style='background:{COLOURS_OF.get(word, '#fff')}'"
    return f"<td{style}>{MARKS.get(word, text(word))}{shown}"


def _claims(scheme: str, claims) -> str:
    own = [claim for claim in claims if scheme in claim["schemes"]]
    if not own:
        return ""
    items = "".join(
        f"<li><a href='../../claims/claims.html#{claim['name']}'>{text(claim['verdict'])}</a>: "
        f"{text(claim['says'])} ({text(claim['source'])})"
        for claim in own
    )
    return f"<h2>Published claims</h2><ul>{items}</ul>"


def _probes(probes, train_length: int) -> list[str]:
    if not probes:
        return []
    drawn = probe_figures.draw(probes, train_length)
    return [figure(name, *probe_figures.FIGURES[name], each) for name, each in drawn.items()]
