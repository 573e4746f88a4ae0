"""Writes the atlas as pages that need no server and no network: an index, and one per scheme."""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from experiments.results import atlas_data
from experiments.results.answers import AGAINST, OWN_WINDOW, SOLVED
from experiments.results.atlas import (
    Atlas,
    control_words,
    family,
    unanswered_words,
)
from experiments.results.comparisons import statement
from experiments.results.lengths import WINDOWED
from experiments.results.record import write_files
from experiments.results.reports.atlas_cells import (
    COLOURS_OF,
    MARKS,
    STYLE,
    UNCLEAR,
    Rows,
    is_shown,
    mean_losses,
    spread,
)
from experiments.results.reports.atlas_scheme_page import scheme_page
from experiments.results.reports.drawing import COLOURS, finish, page_style, svg
from experiments.results.reports.page import command, figure, head, learning_rates, text
from experiments.results.statistics import BASELINE, failure_words, number

# Paper is too narrow for a row: each scheme becomes a block of cells, with its question in each.
_PAPER = """
.filters, #matrix thead { display: none } #matrix { overflow: visible; max-height: none; border: 0 }
#matrix table, #matrix tbody { display: block; line-height: 1.2 }
#matrix tr { display: grid; grid-template-columns: repeat(auto-fill, minmax(5.2rem, 1fr)) }
#matrix tr > * { border: 0; padding: 0 .2rem } #matrix tbody th { grid-column: 1 / -1 }
#matrix td::before { display: block; font-size: 7px; color: #444 }
"""

# Sorts by a column, with empty cells last; shows the rows and columns that the filters ask for.
_SCRIPT = """
const table = document.querySelector("#matrix table"), body = table.tBodies[0];
const heads = [...table.tHead.rows[0].cells], rows = [...body.rows];
const value = (row, i) => {
  const cell = row.cells[i], found = cell.dataset.value;
  return found === undefined ? cell.textContent : found === "" ? NaN : Number(found);
};
function sort(i, up) {
  heads.forEach((head, j) => head.setAttribute("aria-sort",
    j !== i ? "none" : up ? "ascending" : "descending"));
  const holes = row => Number.isNaN(value(row, i));
  const order = (a, b) => a < b ? -1 : a > b ? 1 : 0;
  rows.sort((a, b) => holes(a) - holes(b) ||
    (holes(a) ? 0 : (up ? 1 : -1) * order(value(a, i), value(b, i))));
  body.append(...rows);
}
heads.forEach((head, i) => head.querySelector("button").addEventListener("click", () => {
  const was = head.getAttribute("aria-sort"), first = head.dataset.best !== "high";
  sort(i, was === "none" ? first : was !== "ascending");
}));
const search = document.querySelector("#search"), kind = document.querySelector("#family");
const group = document.querySelector("#group"), shown = document.querySelector("#shown");
function filter() {
  let count = 0;
  for (const row of rows) {
    row.hidden = !row.dataset.name.includes(search.value.trim().toLowerCase()) ||
      (kind.value !== "" && row.dataset.family !== kind.value);
    count += !row.hidden;
  }
  heads.forEach((head, i) => {
    const hide = i > 1 && group.value !== "" && head.dataset.group !== group.value;
    for (const cell of [head, ...rows.map(row => row.cells[i])]) cell.hidden = hide;
  });
  shown.textContent = `${count} of ${rows.length} schemes`;
}
for (const control of [search, kind, group]) control.addEventListener("input", filter);
filter();
"""


def write(
    folder: Path,
    atlas: Atlas,
    cards: Mapping[str, str],
    probes: Mapping[str, dict[str, Any]],
    claims: list[dict[str, Any]],
    tasks: Mapping[str, str],
) -> Path:
    """Writes the atlas into ``folder`` and returns the path of its index.

    Args:
      folder: the folder of the pages, and of the data, see ``atlas_data.py``.
      atlas: all answers.
      cards: what each scheme does to attention and what it costs, as HTML.
      probes: the results of probes of the trained models, by scheme; see
        ``experiments/evaluation/probes.py``.
      claims: the ledger, see ``experiments/studies/claims.py``; empty if there is none yet.
      tasks: what each task asks, by topic.

    Raises:
      ValueError: no study has any result yet.
    """
    data = atlas_data.files(atlas)
    rows = atlas.rows()
    with page_style():
        chart = _map(atlas)
        data["index.html"] = _index(atlas, rows, chart, has_ledger=bool(claims), tasks=tasks)
        pages = {
            f"{name}.html": scheme_page(
                atlas, rows, name, cards.get(name, ""), probes.get(name), claims
            )
            for name in atlas.schemes
        }
    write_files(folder, data | ({"map.svg": chart} if chart else {}))
    write_files(folder / "schemes", pages)
    return folder / "index.html"


def _index(atlas: Atlas, rows: Rows, chart: str, has_ledger: bool, tasks: Mapping[str, str]) -> str:
    failures = "".join(f"<li>{text(failure_words(failure))}" for failure in atlas.failures)
    unanswered = unanswered_words(atlas)
    setup = f"<p>{text(atlas.about['setup'])}</p>" if "setup" in atlas.about else ""
    count = len({*atlas.schemes} - {WINDOWED})
    ledger = " <a href='../claims/claims.html'>Published claims, put to the test</a>." * has_ledger
    parts = [
        head("Atlas of positional encodings", STYLE),
        f"<style>@media print {{{_PAPER}{_labels(atlas)}}}</style>",
        "<div class=text-column><h1>Atlas of positional encodings</h1>",
        f"<p>{count} ways for a Transformer to know the order of its tokens, at "
        f"{len(atlas.questions)} questions.{ledger} <a href='#how'>How it was made</a>.</p>{setup}",
        f"<div class=failed><b>Runs that failed</b><ul>{failures}</ul></div>" if failures else "",
        f"<div class=failed>{unanswered}</div>" if unanswered else "",
        f"<div class=map>{_linked(chart)}</div>" if chart else "",
        f"<h2>Schemes and questions</h2>{_legend(atlas)}{_topics(atlas, tasks)}</div>",
        _filters(atlas),
        f"<div id=matrix>{_matrix(atlas, rows)}</div>",
        f"<div class=text-column>{_how(atlas)}</div>",
        f"<script>{_SCRIPT}</script></html>\n",
    ]
    return "\n".join(parts)


def _how(atlas: Atlas) -> str:
    """Says what was trained and by which rules, and how far the controls agree."""
    about = {key: text(value) for key, value in atlas.about.items()}
    controls = "".join(f"<li>{text(words)}." for words in control_words(atlas.controls))
    parts = [
        f"<h2 id=how>How it was made</h2><p>{about['rules']}</p>"
        f"<p>Device: {about['device']}. Revision <code>{about['git']}</code>, {about['date']}.</p>",
        f"<pre>{command(atlas.about)}</pre>",
        f"<h2>Controls</h2><p>These tasks were learned alone too; every other was learned among "
        f"all tasks only.</p><ul>{controls}</ul>"
        if controls
        else "",
        *(
            f"<details><summary>Learning rates in {text(name)}</summary>{learning_rates(tried)}"
            "</details>"
            for name, tried in atlas.about.get("rates", {}).items()
            if tried
        ),
    ]
    return "\n".join(parts)


def _map(atlas: Atlas) -> str:
    """Draws each scheme by its loss at the trained length and at the greatest one, as SVG."""
    losses = mean_losses(atlas, "text")
    if losses.shape[1] < 2:
        return ""
    short, long = losses.columns[[0, -1]]
    places = losses[[short, long]].dropna().drop(index=WINDOWED, errors="ignore")
    drawing = Figure(figsize=(7.4, 4.6), layout="constrained")
    axes = drawing.add_subplot(yscale="log")
    axes.margins(x=0.16)  # for names
    groups = places.index.map(family)
    for turn, group in enumerate(dict.fromkeys(map(family, atlas.schemes))):
        members = places[groups == group]
        if members.empty:
            continue
        colour, marker = COLOURS[turn % len(COLOURS)], "os^Dv"[turn // len(COLOURS)]
        points = axes.scatter(
            members[short], members[long], 26, colour, marker=marker, label=group, zorder=2
        )
        points.set_urls([f"schemes/{name}.html" for name in members.index])
    best = places[long].groupby(groups).idxmin()
    named = places.loc[places.index.isin({*AGAINST, *best})]
    _write_names(axes, {name: (row[short], row[long]) for name, row in named.iterrows()})
    same = np.linspace(places.to_numpy().min(), places[short].max())
    axes.plot(same, same, color="#bbbbbb", linewidth=1, zorder=1)
    if WINDOWED in losses.index:
        level = losses.loc[WINDOWED, long]
        axes.axhline(level, color="#444444", linewidth=1, linestyle="--", zorder=1)
        axes.annotate(
            WINDOWED, (0.995, level), xycoords=("axes fraction", "data"), ha="right", va="bottom"
        ).set_fontsize(8)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("{x:g}")
    axes.set(
        xlabel=f"bits per byte at {short:g}x the trained length",
        ylabel=f"bits per byte at {long:g}x",
    )
    finish(axes, which="both")
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return svg(drawing)


def _linked(chart: str) -> str:
    """Returns the map with its caption, and the name of each scheme at its point."""
    linked = re.sub(r'(<a xlink:href="schemes/(\w+)\.html"[^>]*>)', r"\1<title>\2</title>", chart)
    caption = (
        "The loss of the last tokens, the mean over seeds. The lower a scheme is, the better it is "
        "beyond the trained length; the farther left, within it. On the line both losses are the "
        f"same. The dashed line is {WINDOWED}, which is RoPE read through a window of the trained "
        "length: what lies above it does worse than that. A point leads to the page of its scheme. "
        "Named are the lowest of each family, NoPE and RoPE."
    )
    return figure("map", "Within and beyond the trained length", caption, linked)


def _write_names(axes, places: dict[str, tuple[float, float]]) -> None:
    """Writes names beside their points on a logarithmic axis, moved up where they would overlap."""
    lowest, highest = (math.log(y) for y in axes.get_ylim())
    height = 72 * axes.figure.get_figheight() * 0.85 / (highest - lowest)  # points of a unit
    above = -math.inf
    for name, (x, y) in sorted(places.items(), key=lambda each: each[1][1]):
        at = height * (math.log(y) - lowest)
        above = max(at, above + 9)
        axes.annotate(
            name,
            (x, y),
            xytext=(6, above - at - 3),
            textcoords="offset points",
            fontsize=8,
            path_effects=[withStroke(linewidth=2, foreground="white")],
        )


def _legend(atlas: Atlas) -> str:
    words = ", ".join(
        f"<span class=key style='background:{COLOURS_OF[word]}'>{mark} {word}</span>"
        for word, mark in MARKS.items()
    )
    return (
        f"<p>Each cell: the mean over seeds (at most {atlas.answers['seeds'].max()}), half of its "
        f"95 % interval over seeds, and the verdicts against {', '.join(AGAINST)}: {words}. Gains "
        "are compared with the same model fed only its most recent tokens. The colour is that of "
        f"the verdict against {WINDOWED} or, where it has no answer, of the last one. "
        f"{WINDOWED} is RoPE read through a window of the trained length. A dash is a missing run. "
        "Click a head to sort by its column, and a name for the scheme's own page.</p>"
        f"<p>{text(statement(atlas.families))}</p>"
        "<p>A head names what is read and its length over that of training: 2x is twice as long. "
        "<b>text</b> counts the last tokens alone, which are the same at every length; <b>text, "
        "all</b> counts all tokens, and in longer texts fewer of them lack context. Both are in "
        "bits per byte, where lower is better. Tasks are in shares of what is right, and in how "
        f"many seeds have {SOLVED:.0%} of the rows right. A task counts only where most seeds have "
        "that at the trained length; elsewhere a cell says <i>not learned</i>.</p>"
    )


def _topics(atlas: Atlas, tasks: Mapping[str, str]) -> str:
    """Says what each topic asks, for those who have no pointer to hold over a head."""
    items = []
    for row in atlas.questions.drop_duplicates("topic").to_dict("records"):
        topic = row["topic"]
        asked = f" The task: {tasks[topic]}" if topic in tasks else ""
        items.append(f"<li><b>{text(topic)}</b>: {text(row['says'] + asked)}")
    return (
        "<details><summary>What each question asks, at its shortest length</summary>"
        f"<ul id=questions>{''.join(items)}</ul></details>"
    )


def _filters(atlas: Atlas) -> str:
    def options(names):
        every = "".join(f"<option>{text(name)}" for name in dict.fromkeys(names))
        return f"<option value=''>all{every}"

    families = options(family(name) for name in atlas.schemes)
    groups = options(atlas.questions["topic"])
    return (
        "<div class=filters><label>Scheme <input type=search id=search></label>"
        f"<label>Family <select id=family>{families}</select></label>"
        f"<label>Questions <select id=group>{groups}</select></label>"
        "<span id=shown role=status></span></div>"
    )


def _matrix(atlas: Atlas, rows: Rows) -> str:
    heads = ["<th class=text aria-sort=none><button>scheme</button>"]
    heads += ["<th class=text aria-sort=none><button>family</button>"]
    questions = atlas.questions.to_dict("records")
    for q in questions:
        best = "low" if q["is_error"] else "high"
        heads.append(
            f"<th aria-sort=none data-group='{text(q['topic'])}' data-best={best} "
            f"title='{text(q['says'])}'><button>{text(q['question'])}</button>"
        )
    body = []
    for name in atlas.schemes:
        cells = "".join(_cell(rows.get((name, q["question"]))) for q in questions)
        body.append(
            f"<tr{' class=baseline' * (name == BASELINE)} data-name='{name}' "
            f"data-family='{family(name)}'><th class=text><a href='schemes/{name}.html'>{name}</a>"
            f"<td class=text>{family(name)}{cells}"
        )
    return f"<table><thead><tr>{''.join(heads)}<tbody>{''.join(body)}</table>"


def _labels(atlas: Atlas) -> str:
    """Returns a style that writes its question above each cell, where no head does."""
    return "\n".join(
        f"#matrix td:nth-child({i})::before {{ content: {json.dumps(question)} }}"
        for i, question in enumerate(atlas.questions["question"], 3)
    )


def _cell(row: dict[str, Any] | None) -> str:
    if row is None or not is_shown(row):
        return f"<td data-value=''>{'-' if row is None else '<small>not learned</small>'}"
    value = f"{row['mean']:.6g}" if math.isfinite(row["mean"]) else "Infinity"
    verdicts = [row[f"vs_{name}"] for name in (*AGAINST, OWN_WINDOW)]
    verdicts = [word for word in verdicts if isinstance(word, str)]
    decisive = row[f"vs_{WINDOWED}"]
    decisive = decisive if isinstance(decisive, str) else (verdicts or [""])[-1]
    colour = COLOURS_OF.get(decisive, "#fff")
    marks = "".join(MARKS.get(word, UNCLEAR) for word in verdicts)
    style = f" style='background:{colour}'" * (colour != "#fff")
    return (
        f"<td data-value={value}{style}>{number(row['mean'])}<small>{spread(row)} {marks}</small>"
    )
